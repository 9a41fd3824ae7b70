"""Skipped steps: jumped over where steps count as when they were named, else cut out as rows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pipeline.batches.stream import Stream
from pipeline.checkpoint.position import Position, Skip
from pipeline.errors import PositionError, StateError
from pipeline.sampling.cursor import Cursor
from pipeline.sampling.cuts import Cuts, Ranges, joined
from pipeline.sampling.passes import SizedPasses, passes_of
from pipeline.sampling.sizes import Rule
from pipeline.types import ENDLESS

MOST_STEPS = 1 << 48


def step_ranges(given: Iterable[Any], name: str) -> Ranges:
    """Ranges of steps that a user gives, sorted and joined.

    Raises:
        PositionError: one is not a range of steps.
    """
    for each in given:
        whole = isinstance(each, range) and each.step == 1
        if not whole or not 0 <= each.start <= max(each.start, each.stop) <= MOST_STEPS:
            raise PositionError(
                f"{name}({each!r}): give ranges of steps like range(100, 200), below 2**48"
            )
    return joined((each.start, each.stop) for each in given)


def jumps_of(skips: Iterable[Skip], rule: Rule, anchor: Cursor) -> Ranges:
    """Skipped steps that have the same batches, by `rule` from `anchor` on, as when named."""
    return joined(
        (start, stop)
        for skip in skips
        for start, stop in skip.steps
        if skip.counts_as(rule, anchor, stop)
    )


def row_cuts(skips: tuple[Skip, ...], rule: Rule, anchor: Cursor, n: int) -> Ranges:
    """Rows of an indexed dataset to cut out: those of steps skipped under another batch rule.

    Args:
        skips: the skips, in the order in which they were named. A later one counts its steps
            without the rows that earlier ones cut out.
        rule, anchor: how steps are counted now.
        n: rows of a pass.
    """
    cuts, rows = (), list[list[tuple[int, int]]]()  # rows of each skip's ranges
    for skip in (*skips, Skip((), rule, anchor)):
        assert skip.rule is not None
        cuts = joined(
            found[i]
            for earlier, found in zip(skips, rows, strict=False)
            for i, (_, stop) in enumerate(earlier.steps)
            if not earlier.counts_as(skip.rule, skip.anchor, stop)
        )
        passes = passes_of(skip.rule, n, Cuts(cuts))
        rows.append([_rows(passes, skip.anchor, *steps) for steps in skip.steps])
    return cuts


def _rows(passes: SizedPasses, anchor: Cursor, start: int, stop: int) -> tuple[int, int]:
    start = max(start, anchor.step)
    if stop <= start or passes.per_pass == 0:
        return 0, 0
    first = passes.spans(passes.locate(start, anchor))[0][0]
    return min(first, ENDLESS), min(passes.spans(passes.locate(stop - 1, anchor))[-1][1], ENDLESS)


def old_skips(position: Position, rule: Rule, n: int) -> tuple[Skip, ...]:
    """The skips of an old state, which does not tell the batch rule that counted their steps.

    Raises:
        StateError: neither the present rule nor a single batch size leads to the state's rows.
    """
    cursor, anchor = position.cursor, position.anchor
    passes = passes_of(rule, n)
    ahead = any(skip.steps[-1][1] > cursor.step for skip in position.skips)
    if ahead and not passes.reaches(cursor, anchor):
        rule = _one_size(cursor, rule, n)
    return tuple(replace(skip, rule=rule) for skip in position.skips)


def _one_size(cursor: Cursor, rule: Rule, n: int) -> Rule:
    # the rule of the one batch size that leads from the start to a cursor
    rows = cursor.rows if n == ENDLESS else cursor.rows - cursor.epoch * n
    tried = [(rows, cursor.step if n == ENDLESS else cursor.batch), (cursor.rows, cursor.step)]
    sizes = {given // batches for given, batches in tried if batches and given >= batches}
    rules = [
        (((0, size),), remainder, steps)
        for size in sizes
        for remainder, steps in (rule[1:], ("keep", None), ("drop", None))
    ]
    fits = [each for each in rules if passes_of(each, n).reaches(cursor, Cursor())]
    if len({fit[0] for fit in fits}) != 1:
        raise StateError(
            "the state skips steps, but was written by an older Lockstep that did not save by "
            "which batch sizes they count. Resume it once with the batch size it was saved under, "
            "and save again."
        )
    return fits[0]


class Skipping:
    """Moves the cursors of a stream past its skipped steps.

    Args:
        stream: the stream.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream, self._jumps = stream, stream.jumps
        self._starts = [start for start, _ in self._jumps]
        self._whole_pass: Cursor | None = None  # known to be skipped from its first step on

    def end(self, step: int) -> int | None:
        """The end of the skipped range that contains a step; None if it is not skipped."""
        at = bisect_right(self._starts, step) - 1
        return self._jumps[at][1] if at >= 0 and step < self._jumps[at][1] else None

    def settled(self, cursor: Cursor) -> Cursor:
        """The cursor after the skipped steps of its pass.

        At a pass whose steps are all skipped, the cursor stays: it counts as a pass without
        batches, so that a loop over epochs goes through it, interrupted or not.
        """
        stop = self.end(cursor.step) if self._jumps else None
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
        """The start of the pass after one whose steps are all skipped."""
        return self._stream.advance(cursor, self.end(cursor.step) or cursor.step)

    def past(self, cursor: Cursor) -> Cursor:
        """The cursor after all passes whose steps are all skipped."""
        while (stop := self.end(cursor.step)) is not None:
            cursor = self.settled(self._stream.jump(cursor, stop))
        return cursor
