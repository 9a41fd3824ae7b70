"""How commands spread pieces of work over workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.dataset import Dataset
from pipeline.loader import Loader


def done_by(
    workers: Any, f: Callable[[int], Any], pieces: Sequence[int], *, name: str
) -> Iterator[Any]:
    """`f(piece)` for each piece, in order, each by itself and by whoever is free.

    Args:
        workers: as `Loader` takes them: 0, n processes, "auto", Ray(n).
        f: picklable, where processes evaluate it.
        pieces: what it is called with.
        name: of the work, in messages.

    >>> list(done_by(0, lambda n: n * n, range(4), name="square"))
    [0, 1, 4, 9]
    """
    work = Dataset(pieces).map(f, name=name)
    # ahead=1: however quick a piece is, the next is asked for alone
    with Loader(work, 1, workers=workers, collate=lambda rows: rows, ahead=1) as loader:
        for batch in loader:
            yield from batch
