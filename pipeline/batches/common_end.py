"""Where a padded pass ends for all hosts once records are left out: where it ends for one host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pipeline.checkpoint.position import Position
from pipeline.sampling.cursor import Cursor


class AllLanes(Protocol):
    """A stream of batches that reads all lanes, as that of a single host does."""

    def at(self, position: Position) -> AllLanes:
        """The stream from another position on."""
        ...

    def begin(self, cursor: Cursor) -> None:
        """Count steps from a cursor on."""
        ...

    def locate(self, step: int) -> Cursor:
        """The cursor at a step."""
        ...

    def turn(self, cursor: Cursor) -> Cursor:
        """The start of the next pass."""
        ...

    def is_over(self, cursor: Cursor) -> bool:
        """Whether the pass has no further batch at a cursor."""
        ...


class CommonEnd:
    """Follows all lanes from batch to batch, so that every host finds the same end of a pass.

    A count of each lane's rows would not do: records are left out from some step on, and only the
    batches tell which rows a lane had given until then.

    Args:
        stream: reads all lanes.
        start: the first cursor of a pass that is known for all lanes, given a cursor of the pass.
    """

    def __init__(self, stream: AllLanes, start: Callable[[Cursor], Cursor]) -> None:
        self._stream, self._start = stream, start
        self._first: Cursor | None = None
        self._last = Cursor()

    def at(self, position: Position, start: Callable[[Cursor], Cursor]) -> CommonEnd | None:
        """The same for another position, if that is not before the batches that were followed."""
        if self._first is None or position.cursor.step < self._first.step:
            return None
        other = CommonEnd(self._stream.at(position), start)
        other._first, other._last = self._first, self._last
        return other

    def __call__(self, cursor: Cursor) -> bool:
        """Whether the pass has no further batch at a cursor, of whatever lanes."""
        near = abs(cursor.epoch - self._last.epoch) <= 1
        if self._first is None or cursor.step < self._first.step or not near:
            self._first = self._start(cursor)
            self._stream.begin(self._first)
        at = self._stream.locate(cursor.step)
        while at.epoch < cursor.epoch:
            at = self._stream.turn(at)  # past passes that hold no further batch
        self._last = at
        return at.epoch > cursor.epoch or self._stream.is_over(at)
