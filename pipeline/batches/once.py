"""What evaluation reads: one pass from step 0, each time it is iterated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import Any, Protocol


class _Pass(Sized, Protocol):
    def __iter__(self) -> Iterator[Any]: ...

    def seek(self, step: int) -> None: ...

    def close(self) -> None: ...


class Once:
    """A loader's dataset and options, read from the beginning each time.

    Workers stay from pass to pass; they end with `close`, or when this object is dropped. Passes
    may overlap: each has a loader of its own.

    Args:
        make: opens a loader that stands at step 0.
    """

    def __init__(self, make: Callable[[], _Pass]) -> None:
        self._make = make
        self._free: list[_Pass] = []

    def __iter__(self) -> Iterator[Any]:
        loader = self._free.pop() if self._free else self._make()
        try:
            yield from loader
        except Exception:
            loader.close()
            raise
        finally:
            loader.seek(0)  # what was read ahead is cancelled
            self._free.append(loader)

    def __len__(self) -> int:
        if not self._free:
            self._free.append(self._make())
        return len(self._free[-1])

    def close(self) -> None:
        """End the workers; the next pass starts others."""
        for loader in self._free:
            loader.close()

    def __enter__(self) -> Once:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
