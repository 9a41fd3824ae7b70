"""Which steps are passed over: ranges of them, and where a stream stands after those."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.batches.streams import Stream
from pipeline.checkpoint.state import Skips, merge_skips
from pipeline.errors import PositionError
from pipeline.sampling.passes import Cursor


class Skipping:
    """Steps that are not handed out.

    Args:
        stream: whose steps.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream, self.ranges = stream, Skips()
        self._whole_pass: Cursor | None = None  # known to be skipped from its first step on

    def plus(self, ranges: Iterable[Any]) -> Skips:
        """The ranges, and more.

        Raises:
            PositionError: one is no range of steps.
        """
        more = [self.steps(r, "skip") for r in ranges]
        return merge_skips([*self.ranges, *((r.start, r.stop) for r in more)])

    @staticmethod
    def steps(given: Any, name: str = "within") -> range:
        """A range of steps.

        Raises:
            PositionError: it is none.
        """
        if not isinstance(given, range) or given.step != 1 or given.start < 0:
            raise PositionError(f"{name}({given!r}): give ranges of steps like range(100, 200)")
        return given

    def end(self, step: int) -> int | None:
        """Where the skipped range that holds a step ends; None if none does."""
        return next((stop for start, stop in self.ranges if start <= step < stop), None)

    def moved(self) -> None:
        """The stream stands elsewhere."""
        self._whole_pass = None

    def settled(self, cursor: Cursor) -> Cursor:
        """Past the skipped steps of the cursor's pass.

        A pass that is skipped wholly stays: it is one without batches, so that a loop over passes
        counts it, interrupted or not.
        """
        stop = self.end(cursor.step)
        if stop is None or cursor == self._whole_pass:
            return cursor
        after = self._stream.advance(cursor, stop)
        if after.epoch == cursor.epoch:
            return after
        if cursor.batch:
            return self.settled(after)
        self._whole_pass = cursor
        return cursor

    def next_pass(self, cursor: Cursor) -> Cursor:
        """The start of the pass after one that is skipped wholly."""
        return self._stream.advance(cursor, self.end(cursor.step) or cursor.step)
