"""The loader for evaluation: each iteration is one pass from step 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import Any, Generic, Protocol

from pipeline.types import BatchT


class _Pass(Sized, Protocol):
    """A loader, as far as one pass needs it."""

    def __iter__(self) -> Iterator[Any]: ...

    def seek(self, step: int) -> None: ...

    def close(self) -> None: ...


class Once(Generic[BatchT]):
    """Reads a loader's dataset from the beginning, each time it is iterated.

    Its workers live on between passes, until `close()` or the end of the object.

    Args:
        make: opens a loader that stands at step 0.
        options: the loader's options, for `repr`.
    """

    def __init__(self, make: Callable[[], _Pass], options: str = "") -> None:
        self._make, self._options = make, options
        self._idle: _Pass | None = None

    def __iter__(self) -> Iterator[BatchT]:
        loader = self._loader()
        try:
            yield from loader
        finally:
            self._put_back(loader)

    def __len__(self) -> int:
        loader = self._loader()
        try:
            return len(loader)
        finally:
            self._put_back(loader)

    def __repr__(self) -> str:
        return f"Once({self._options})"

    def _loader(self) -> _Pass:
        # a loader serves one loop at a time: a second loop gets another
        loader, self._idle = self._idle, None
        return self._make() if loader is None else loader

    def _put_back(self, loader: _Pass) -> None:
        loader.seek(0)
        if self._idle is None:
            self._idle = loader
        else:
            loader.close()

    def close(self) -> None:
        """End its workers; the next pass starts others."""
        loader, self._idle = self._idle, None
        if loader is not None:
            loader.close()
