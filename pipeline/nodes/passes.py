"""Counts the rows of a lane in each pass, which only reading all of them tells."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.nodes.streamed import Reader
from pipeline.sampling.cursor import Place

CHUNK = 256  # rows that are read at a time


class PassRows:
    """Counts rows with readers of its own, so that the readers of batches are not disturbed.

    Args:
        make: opens a reader.
    """

    def __init__(self, make: Callable[[], Reader]) -> None:
        self._make = make
        self._known: dict[
            int, tuple[int, Place, int]
        ] = {}  # by lane: the pass counted last, the place after it, its rows

    def __call__(self, lane: int, epoch: int) -> int:
        """The number of rows of a lane in pass `epoch`, which must not be endless."""
        known, place, rows = self._known.get(lane, (-1, None, 0))
        if known == epoch:
            return rows
        reader = self._make()
        if place is None or known > epoch or reader.arithmetic:
            known = epoch - 1 if reader.arithmetic else -1
            place = reader.start()
        for turn in range(known + 1, epoch + 1):
            place, rows = _through(reader, lane, reader.turn(place, turn) if turn else place, turn)
        reader.cancel()
        self._known[lane] = epoch, place, rows
        return rows

    def start(self, lane: int, epoch: int) -> Place:
        """Where a lane stands at the start of pass `epoch`."""
        reader = self._make()
        if not epoch or reader.arithmetic:
            return reader.turn(reader.start(), epoch) if epoch else reader.start()
        self(lane, epoch - 1)
        return reader.turn(self._known[lane][1], epoch)


def _through(reader: Reader, lane: int, place: Place, epoch: int) -> tuple[Place, int]:
    rows, got = 0, CHUNK
    while got == CHUNK:
        reader.keep(lane, place)
        parts, place = reader.pull(lane, place, epoch, CHUNK)
        got = sum(map(len, parts))
        rows += got
    return place, rows
