"""The position of a stream of batches, and of each of its lanes."""

from __future__ import annotations

from typing import Any, NamedTuple

# position of a lane: (block, rows already taken from it), or those of a mix's components
Place = tuple[Any, ...]
Lane = tuple[int, Place]


class Parts(tuple[tuple[str, Place], ...]):
    """The positions of a lane in a mix's components: (name, place), sorted by name."""


class Cursor(NamedTuple):
    """The position of a stream of batches, just before a batch.

    Attributes:
        rows: rows of the stream before the next batch.
        step: data step of the next batch.
        epoch: pass of the next batch.
        batch: batches of this pass before the next one.
        lanes: for a streamed dataset, the position of each of this process's lanes.
        taken: for a streamed dataset, how many rows of this pass each lane has passed.
    """

    rows: int = 0
    step: int = 0
    epoch: int = 0
    batch: int = 0
    lanes: tuple[Lane, ...] = ()
    taken: int = 0
