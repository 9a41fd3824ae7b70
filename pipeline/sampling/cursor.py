"""Where a stream of batches stands, and each of its lanes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# where a lane stands: (block, rows given of it), or what a mix knows of its components' lanes
Place = tuple[Any, ...]
Lane = tuple[int, Place]


class Parts(tuple[tuple[str, Place], ...]):
    """The places of a mix's components: (name, place), sorted by name."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a stream of batches stands, just before a batch.

    Attributes:
        rows: rows of the stream before the next batch.
        step: data step of the next batch.
        epoch: pass of the next batch.
        batch: batches of this pass before it.
        lanes: of a streamed dataset, where each of this process's lanes stands.
        taken: of a streamed dataset, rows of this pass that each lane is past.
    """

    rows: int = 0
    step: int = 0
    epoch: int = 0
    batch: int = 0
    lanes: tuple[Lane, ...] = ()
    taken: int = 0
