"""Where a stream of batches stands, and each of its lanes."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.types import ENDLESS

# where a lane stands: (block, rows given of it), or what a mix knows of its components' lanes
Place = tuple[Any, ...]
Lane = tuple[int, Place]


class Parts(tuple[tuple[str, Place], ...]):
    """The places of a mix's components: (name, place), sorted by name."""


def freeze(place: Any) -> Any:
    """A place from plain JSON-able data.

    Raises:
        ValueError: it is none.

    >>> freeze([3, {"en": [0, 1]}])
    (3, (('en', (0, 1)),))
    """
    if isinstance(place, Mapping):
        return Parts(sorted((str(name), freeze(at)) for name, at in place.items()))
    if isinstance(place, list | tuple):
        return tuple(map(freeze, place))
    if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place <= ENDLESS:
        raise ValueError(f"{reprlib.repr(place)} should be a whole number from 0 to 2**62")
    return place


def thaw(place: Any) -> Any:
    """A place as plain JSON-able data."""
    if isinstance(place, Parts):
        return {name: thaw(at) for name, at in place}
    return [thaw(at) for at in place] if isinstance(place, tuple) else place


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a stream of batches stands, just before a batch.

    Attributes:
        rows: rows of the stream before the next batch.
        step: data step of the next batch.
        epoch: pass of the next batch.
        batch: batches of this pass before it.
        lanes: of a counted dataset, where each of this process's lanes stands.
        taken: of a counted dataset, rows of this pass that each lane is past.
    """

    rows: int = 0
    step: int = 0
    epoch: int = 0
    batch: int = 0
    lanes: tuple[Lane, ...] = ()
    taken: int = 0
