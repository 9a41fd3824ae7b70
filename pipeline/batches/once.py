"""What evaluation reads: one pass from step 0, each time it is iterated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from contextlib import AbstractContextManager
from typing import Any, Protocol


class _Pass(Sized, Protocol):
    def __iter__(self) -> Iterator[Any]: ...


class Once:
    """A loader's dataset and options, read from the beginning each time.

    Args:
        make: opens a loader that stands at step 0.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[_Pass]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Any]:
        with self._make() as loader:
            yield from loader

    def __len__(self) -> int:
        with self._make() as loader:
            return len(loader)
