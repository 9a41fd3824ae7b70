"""Batches of a counted dataset: each lane gives its next rows, block after block."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from heapq import heapify, heappop, heappush

import numpy as np

from pipeline.block import Block, Int64s, Origin
from pipeline.chain import Chain
from pipeline.checkpoint.state import Rule, Saved
from pipeline.errors import LanesError, PositionError, StateError, StreamEndError
from pipeline.sampling.passes import Cursor, Lane, Where
from pipeline.streams.take import Jump, Share, Take
from pipeline.workers.work import Executor, LaneBlock, Pending

BEGIN = 8  # blocks begun at a time, or two a lane: each batch handed out begins some more
FAR = 256  # blocks of a lane that are asked for ahead at most


class CountedStream:
    """Batches of a counted dataset: the next rows of each of this process's lanes, lane by lane."""

    def __init__(
        self,
        chain: Chain,
        executor: Executor,
        share: Share,
        *,
        batch_size: int,
        remainder: str,
        steps: int | None,
    ) -> None:
        self._chain, self._executor = chain, executor
        self._batch, self._remainder, self._steps = batch_size, remainder, steps
        self._each = batch_size // chain.lanes
        self._per_pass = chain.blocks.per_pass
        self._rows = share.rows(batch_size)
        self.lanes = self._own_lanes()
        self.alone = len(self.lanes) == chain.lanes
        self._blocks: dict[int, dict[int, Pending]] = {lane: {} for lane in self.lanes}
        # without a common end, hosts would stop at different steps
        self.ends_together = self._per_pass is None or steps is not None or remainder == "pad"
        self._marks = [self.start()]
        self._counts: dict[tuple[int, int], int] = {}

    def start(self) -> Cursor:
        return Cursor(lanes=tuple((lane, (0, 0)) for lane in self.lanes))

    def turn(self, cursor: Cursor) -> Cursor:
        epoch, lanes = cursor.epoch + 1, cursor.lanes
        if self._per_pass is not None:
            lanes = tuple((lane, (epoch * self._per_pass, 0)) for lane, _ in lanes)
        return replace(cursor, epoch=epoch, batch=0, lanes=lanes, taken=0)

    @property
    def rule(self) -> Rule:
        return self._batch, self._remainder, self._steps

    @property
    def per_pass(self) -> int | None:
        return self._steps

    def restore(self, saved: Saved) -> tuple[Cursor, bool]:
        cursor = self._own(saved.cursor)
        other = saved.rule != self.rule and cursor.step > 0
        if other and self._over(cursor):
            cursor = self.turn(cursor)
        self._marks = (
            [cursor] if other or saved.since or not cursor.step else [self.start(), cursor]
        )
        return cursor, other

    def _own(self, cursor: Cursor) -> Cursor:
        known = dict(cursor.lanes)
        missing = [lane for lane in self.lanes if lane not in known]
        if missing:
            raise StateError(
                f"the state knows lanes {sorted(known)} of {self._chain.lanes}, this process needs "
                f"{missing} too: merge the hosts' states with pipeline.checkpoint.merge([...])"
            )
        return replace(cursor, lanes=tuple((lane, known[lane]) for lane in self.lanes))

    def _mark(self, cursor: Cursor) -> None:
        # remembered for later seeks; the marks thin out as they grow many, the first one stays
        nearest = self._nearest(cursor.step)
        if nearest < 0 or self._marks[nearest].step == cursor.step:
            return
        self._marks.insert(nearest + 1, cursor)
        if len(self._marks) > 256:
            self._marks = self._marks[::2]

    def _nearest(self, step: int) -> int:
        return bisect_right(self._marks, step, key=lambda c: c.step) - 1

    def locate(self, step: int) -> Cursor:
        nearest = self._nearest(step)
        if nearest < 0:
            raise PositionError(
                f"step {step} lies before step {self._marks[0].step}, where this loader took over "
                "a state of other batches. For earlier steps use a loader of the old batch size "
                "and rule, or a state from before that step."
            )
        cursor = self._marks[nearest]
        while cursor.step < step:
            self.expect(cursor, lambda after: after)
            take = self.take(cursor)
            if take is None and self.take(self.turn(cursor)) is None:
                raise StreamEndError(f"there is no step {step}: a whole pass holds no batch")
            cursor = take.after if take else self.turn(cursor)
        return cursor

    def advance(self, cursor: Cursor, step: int) -> Cursor:
        known = self._marks[max(0, self._nearest(step))]
        if known.step > cursor.step and known.epoch == cursor.epoch:
            cursor = known
        epoch = cursor.epoch
        while cursor.step < step and cursor.epoch == epoch:
            take = self.take(cursor)
            cursor = take.after if take else self.turn(cursor)
        return cursor

    def origin(self, cursor: Cursor) -> Origin:
        take = self.take(cursor)
        if take is None:
            raise PositionError(f"there is no step {cursor.step}: its pass holds no batch")
        return take.block.origin

    def take(self, cursor: Cursor) -> Take | None:
        parts: list[Block] = []
        slots: list[Int64s] = []
        lanes: list[Lane] = []
        end = self._end(cursor)
        for k, (lane, where) in enumerate(cursor.lanes):
            found, where = self._pull(lane, where, end)
            parts += found
            lanes.append((lane, where))
            slots.append(k * self._each + np.arange(sum(len(p) for p in found)))
        got = sum(len(s) for s in slots)
        if not self._enough(got, cursor):
            return None
        block = Block.concat(parts) if parts else Block([], Origin.none())
        pad = self._remainder == "pad"
        after = Cursor(
            cursor.rows + (self._batch if pad or not self.alone else got),
            cursor.step + 1,
            cursor.epoch,
            cursor.batch + 1,
            tuple(lanes),
            cursor.taken + self._each,
        )
        self._mark(after := self.turn(after) if self._over(after) else after)
        rows = self._rows if pad or not self.alone else np.arange(got)
        places = np.concatenate(slots) if pad else np.arange(got)
        total = self._batch if pad or not self.alone else got
        return Take(block, places, rows, total, after, kept=True)

    # ---- ends

    def _end(self, cursor: Cursor) -> int | None:
        return None if self._per_pass is None else (cursor.epoch + 1) * self._per_pass

    def _enough(self, got: int, cursor: Cursor) -> bool:
        # whether what was found is a batch: always, once a pass turns over in time
        full = got == self._each * len(self.lanes)
        if full or (self._remainder == "pad" and (self._steps or not self._over(cursor))):
            return True
        if self._steps is not None:
            raise StreamEndError(
                f"steps={self._steps}, but pass {cursor.epoch} ends after {cursor.batch} batches "
                f'of {self._batch}. Lower steps=, repeat() the dataset, or use remainder="pad".'
            )
        return self._remainder == "keep" and got > 0

    def _over(self, cursor: Cursor) -> bool:
        """Whether the pass holds no further batch at a cursor."""
        if self._steps is not None:
            return cursor.batch >= self._steps
        end = self._end(cursor)
        if end is None:
            return False
        if self._remainder == "pad" and not self.alone:
            # every host must come to the same answer, so each counts all lanes
            lanes = range(self._chain.lanes)
            return all(self._count(lane, cursor.epoch) <= cursor.taken for lane in lanes)
        want = self._each if self._remainder == "drop" else 1
        left = [self._has(lane, where, end, want) for lane, where in cursor.lanes]
        return not (all(left) if self._remainder == "drop" else any(left))

    def _has(self, lane: int, where: Where, end: int, want: int) -> bool:
        number, offset = where
        want += offset
        while want > 0 and number < end:
            want -= len(self._get(lane, number))
            number += 1
        return want <= 0

    def _count(self, lane: int, epoch: int) -> int:
        if (lane, epoch) not in self._counts:
            first = epoch * (self._per_pass or 0)
            numbers = range(first, first + (self._per_pass or 0))
            self._counts = {k: v for k, v in self._counts.items() if k[1] == epoch}
            self._counts[lane, epoch] = sum(
                len(self._executor.submit(LaneBlock(lane, n)).result()) for n in numbers
            )
        return self._counts[lane, epoch]

    # ---- lanes

    def _own_lanes(self) -> tuple[int, ...]:
        lanes = np.unique(self._rows // self._each)
        whole = (lanes[:, None] * self._each + np.arange(self._each)).ravel()
        if not np.array_equal(whole, self._rows):
            raise LanesError(
                f"this process needs rows {self._rows[0]}..{self._rows[-1]} of {self._batch}, "
                f"no whole lanes: the dataset has {self._chain.lanes} of {self._each} rows each "
                "(saved states depend on it). New run: .lanes(number of hosts)."
            )
        return tuple(int(lane) for lane in lanes)

    def _pull(self, lane: int, where: Where, end: int | None) -> tuple[list[Block], Where]:
        # up to `each` rows of a lane, and where it then stands
        number, offset = where
        parts: list[Block] = []
        want, empty = self._each, 0
        while want and (end is None or number < end):
            block = self._get(lane, number)
            offset = min(offset, len(block))  # shorter than when saved, if a change was allowed
            part = block.slice(offset, min(offset + want, len(block)))
            want, offset = want - len(part), offset + len(part)
            empty = 0 if len(part) else empty + 1
            if len(part):
                parts.append(part)
            if offset == len(block):
                number, offset = number + 1, 0
            if empty > self._chain.patience:
                raise self._chain.barren(lane, empty)
        return parts, (number, offset)

    def _get(self, lane: int, number: int) -> Block:
        blocks = self._blocks[lane]
        for n in [n for n in blocks if not number - 1 <= n <= number + FAR]:
            blocks.pop(n).cancel()
        if number not in blocks:
            blocks[number] = self._executor.submit(LaneBlock(lane, number), urgent=True)
        try:
            return blocks[number].result()
        except BaseException:
            blocks.pop(number)  # asked again, it is tried again
            raise

    # ---- ahead

    def expect(self, cursor: Cursor, jump: Jump) -> None:
        # lane by lane, so that none is short of blocks while another has many; skipped steps are
        # read too: only their rows say where the next ones begin
        end = self._end(cursor)
        behind = [
            (self._reach(lane, number) - number, lane, number) for lane, (number, _) in cursor.lanes
        ]
        heapify(behind)
        for _ in range(max(BEGIN, 2 * len(behind))):
            if not behind or not self._executor.room():
                return
            ahead, lane, number = heappop(behind)
            n = self._reach(lane, number + ahead)
            if (end is None or n < end) and n < number + FAR:
                self._blocks[lane][n] = self._executor.submit(LaneBlock(lane, n))
                heappush(behind, (n + 1 - number, lane, number))

    def _reach(self, lane: int, number: int) -> int:
        # the lane's first block from `number` on that was not asked for
        while number in self._blocks[lane]:
            number += 1
        return number

    def forget(self) -> None:
        for blocks in self._blocks.values():
            for pending in blocks.values():
                pending.cancel()
            blocks.clear()
