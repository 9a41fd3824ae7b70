"""Which rows of each lane are skipped, where the skipped steps were counted by other batches."""

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
    """Skipped rows of a streamed dataset, the same of each lane.

    How many batches an earlier pass had says only the number of its rows, so a skipped step is
    looked up once its pass is reached.

    Args:
        skips: in the order in which they were named.
        rule, anchor: how steps are counted now.
        lanes: L.
        lane_rows: how many rows a lane has in a pass.
        endless: whether a pass never ends.

    Attributes:
        any: whether there are any.
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
        """What is cut out of a pass, by the number of a lane's row in it.

        Where a pass never ends, by its number in the whole lane.
        """
        if self._endless:
            return self._of_all
        if epoch not in self._passes:
            self._passes = {epoch: self._cuts(len(self._skips) - 1, epoch)}
        return self._passes[epoch]

    @cached_property
    def _of_all(self) -> Cuts:
        *skips, now = self._skips
        assert now.rule is not None
        rows = row_cuts(tuple(skips), now.rule, now.anchor, ENDLESS)
        return Cuts(tuple((start // self._lanes, stop // self._lanes) for start, stop in rows))

    def _cuts(self, i: int, epoch: int) -> Cuts:
        # what skips before the i-th cut out of a pass, as steps are counted for that one
        ours = self._skips[i]
        assert ours.rule is not None
        found: list[tuple[int, int]] = []
        for j, skip in enumerate(self._skips[:i]):
            steps = [s for s in skip.steps if not skip.counts_as(ours.rule, ours.anchor, s[1])]
            begin = self._begin(j, epoch, steps[-1][1]) if steps else None
            if begin is not None:
                found += self._rows(j, begin, steps)
        return Cuts(joined(found))

    def _rows(self, j: int, begin: Cursor, steps: list[tuple[int, int]]) -> list[tuple[int, int]]:
        # rows of the steps of a pass; where its lanes end before, there are none to cut
        rule = self._skips[j].rule
        assert rule is not None
        end = None if rule[2] is None else begin.step + rule[2] - begin.batch
        each = tuple((since, size // self._lanes) for since, size in rule[0])
        passes = SizedPasses.of(each, ENDLESS, cuts=self._cuts(j, begin.epoch))
        origin = Cursor(begin.taken, begin.step)
        found: list[tuple[int, int]] = []
        for start, stop in steps:
            start, stop = max(start, begin.step), stop if end is None else min(stop, end)
            if start < stop:
                first, end_row = (passes.locate(k, origin).rows for k in (start, stop))
                found.append((first, end_row))
        return found

    def _begin(self, j: int, epoch: int, last: int) -> Cursor | None:
        # where a pass begins as the j-th skip counts steps; None if it lies past the last step
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
