"""Spreading pieces of work over workers, for commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.dataset import Dataset
from pipeline.loader import Loader


def done_by(
    workers: Any, f: Callable[[int], Any], pieces: Sequence[int], *, name: str
) -> Iterator[Any]:
    """`f(piece)` for each piece, in order. A worker that is free takes the next piece.

    Args:
        workers: as for `Loader`: 0, n processes, "auto", Ray(n).
        f: must pickle if processes evaluate it.
        pieces: the numbers that `f` is called with.
        name: of the work, for messages.

    >>> list(done_by(0, lambda n: n * n, range(4), name="square"))
    [0, 1, 4, 9]
    """
    work = Dataset(pieces).map(f, name=name)
    # ahead=1: pieces are evaluated one at a time, however quick
    with Loader(work, 1, workers=workers, collate=lambda rows: rows, ahead=1) as loader:
        for batch in loader:
            yield from batch
