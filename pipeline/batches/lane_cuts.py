"""Rows of each lane to cut out: those of steps that were skipped under another batch rule."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from pipeline.batches.skipping import row_cuts
from pipeline.checkpoint.position import Skip
from pipeline.sampling.cursor import Cursor
from pipeline.sampling.cuts import Cuts, joined
from pipeline.sampling.passes import SizedPasses
from pipeline.sampling.sizes import Rule, size_at
from pipeline.types import ENDLESS

LaneRows = Callable[[int, int], int]


class LaneCuts:
    """Rows to cut out of a streamed dataset, the same ones of each lane.

    How many steps a pass has depends on how many rows its lanes give. A skipped step is therefore
    translated into rows only once its pass is reached.

    Args:
        skips: the skips, in the order in which they were named.
        rule, anchor: how steps are counted now.
        lanes: the number of lanes.
        lane_rows: (lane, epoch) -> rows of the lane in that pass.
        endless: whether a pass never ends.

    Attributes:
        any: whether any rows are to be cut out.
    """

    def __init__(
        self,
        skips: tuple[Skip, ...],
        rule: Rule,
        anchor: Cursor,
        lanes: int,
        lane_rows: LaneRows,
        endless: bool,
    ) -> None:
        self._lanes, self._lane_rows, self._endless = lanes, lane_rows, endless
        self._skips = (*skips, Skip((), rule, anchor))
        self.any = any(
            not skip.counts_as(rule, anchor, stop) for skip in skips for _, stop in skip.steps
        )
        self._passes: dict[int, Cuts] = {}
        self._turns: dict[tuple[int, int], Cursor] = {}

    def of_pass(self, epoch: int) -> Cuts:
        """The rows to cut out of a pass, counted in each lane from the start of the pass.

        If a pass never ends, they are counted from the start of the lane.
        """
        if self._endless:
            return self._of_all
        if epoch not in self._passes:
            self._passes = {epoch: self._cuts(len(self._skips) - 1, epoch)}
        return self._passes[epoch]

    def ended(self, epoch: int) -> bool:
        """Whether other rows are to be cut out of a pass now that its end was met.

        A skipped step that the pass turns out not to have had takes no rows away.
        """
        before = self.of_pass(epoch)
        if self._endless or not before.ranges:
            return False
        self._passes = {epoch: self._cuts(len(self._skips) - 1, epoch, ended=True)}
        return self._passes[epoch].ranges != before.ranges

    def cut(self, epoch: int) -> bool:
        """Whether rows were cut out of a pass whose end was met."""
        if self._endless or not self.of_pass(epoch).ranges:
            return bool(self.of_pass(epoch).ranges)
        self.ended(epoch)
        return any(start < self._rows_of(epoch) for start, _ in self.of_pass(epoch).ranges)

    def _rows_of(self, epoch: int) -> int:
        # of the longest lane
        return max(self._lane_rows(lane, epoch) for lane in range(self._lanes))

    @cached_property
    def _of_all(self) -> Cuts:
        *skips, now = self._skips
        assert now.rule is not None
        rows = row_cuts(tuple(skips), now.rule, now.anchor, ENDLESS)
        return Cuts(tuple((start // self._lanes, stop // self._lanes) for start, stop in rows))

    def _cuts(self, i: int, epoch: int, *, ended: bool = False) -> Cuts:
        # the rows of a pass that are gone when skip i counts its steps: those of earlier skips,
        # except for steps that these count as skip i does
        ours = self._skips[i]
        assert ours.rule is not None
        found: list[tuple[int, int]] = []
        for j, skip in enumerate(self._skips[:i]):
            steps = [s for s in skip.steps if not skip.counts_as(ours.rule, ours.anchor, s[1])]
            begin = self._begin(j, epoch, steps[-1][1]) if steps else None
            if begin is not None:
                found += self._rows(j, begin, steps, ended)
        return Cuts(joined(found))

    def _rows(
        self, j: int, begin: Cursor, steps: list[tuple[int, int]], ended: bool
    ) -> list[tuple[int, int]]:
        # the rows of skip j's steps in the pass that begins at `begin`; they may reach past its
        # end, unless it is known where it `ended`. Rows that no step takes go with the steps around
        rule = self._skips[j].rule
        assert rule is not None
        counted = ended or rule[2] is not None
        end = begin.step + self._steps(j, begin) if counted else None
        each = tuple((since, size // self._lanes) for since, size in rule[0])
        passes = SizedPasses.of(each, ENDLESS, cuts=self._cuts(j, begin.epoch))
        origin = Cursor(begin.taken, begin.step)
        found: list[tuple[int, int]] = []
        for start, stop in steps:
            start, last = max(start, begin.step), stop if end is None else min(stop, end)
            if start < last:
                first, past = (passes.locate(k, origin).rows for k in (start, last))
                on = ended and last < stop  # into the next pass
                found.append((first, max(past, self._rows_of(begin.epoch)) if on else past))
        return found

    def _begin(self, j: int, epoch: int, last: int) -> Cursor | None:
        # where pass `epoch` begins, with steps counted as by skip j; None if past step `last`
        begin = self._skips[j].anchor
        if epoch < begin.epoch:
            return None
        while begin.epoch < epoch and begin.step < last:
            begin = self._next_pass(j, begin)
        return begin if begin.step < last else None

    def _next_pass(self, j: int, begin: Cursor) -> Cursor:
        known = self._turns.get((j, begin.epoch))
        if known is None:
            step = begin.step + self._steps(j, begin)
            known = self._turns[j, begin.epoch] = Cursor(step=step, epoch=begin.epoch + 1)
        return known

    def _steps(self, j: int, begin: Cursor) -> int:
        # batches from a cursor to the end of its pass
        rule = self._skips[j].rule
        assert rule is not None
        sizes, remainder, steps = rule
        if steps is not None:
            return steps - begin.batch
        cuts, epoch = self._cuts(j, begin.epoch), begin.epoch
        left = [
            cuts.outside(begin.taken, max(begin.taken, self._lane_rows(lane, epoch)))
            for lane in range(self._lanes)
        ]
        rest, step = (min(left) if remainder == "drop" else max(left)), begin.step
        while rest > 0:
            rest -= size_at(sizes, step) // self._lanes
            step += remainder != "drop" or rest >= 0
        return step - begin.step
