"""Batches of a counted dataset: each lane gives its next rows, block after block."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from heapq import heapify, heappop, heappush

import numpy as np

from pipeline.batches.streams.take import Jump, Share, Take
from pipeline.block import Block, Int64s, Origin
from pipeline.checkpoint.state import Rule, Saved
from pipeline.errors import LanesError, PositionError, StateError, StreamEndError
from pipeline.nodes import FAR, Part, PassRows, Path, Pending, Reader
from pipeline.provenance.exclusions import Exclusions
from pipeline.sampling.passes import Cursor, Lane, Place
from pipeline.sampling.sizes import Sizes, agree, size_at
from pipeline.workers.work import Executor, LaneBlock

PATIENCE = 1 << 20  # excluded rows, beyond four epochs of them, after which none other will come
BEGIN = 8  # blocks begun at a time, or two a run of them: each batch handed out begins some more


class CountedStream:
    """Batches of a counted dataset: the next rows of each of this process's lanes, lane by lane."""

    def __init__(
        self,
        chain: Part,
        executor: Executor,
        share: Share,
        *,
        sizes: Sizes,
        remainder: str,
        steps: int | None,
    ) -> None:
        self._chain, self._executor = chain, executor
        self._sizes, self._remainder, self._steps = sizes, remainder, steps
        self._reader = self._open()
        self._rows = {size: share.rows(size) for _, size in sizes}
        self.lanes = self._own_lanes()
        self.alone = len(self.lanes) == chain.lanes
        # without a common end, hosts would stop at different steps
        self.ends_together = self._reader.endless or steps is not None or remainder == "pad"
        self._marks = [self.start()]
        self._count = PassRows(self._open)
        self._excluded = Exclusions()

    def _open(self) -> Reader:
        def ask(part: Path, lane: int, number: int, urgent: bool) -> Pending:
            return self._executor.submit(LaneBlock(lane, number, part), urgent=urgent)

        return self._chain.reader(ask)

    def start(self) -> Cursor:
        return Cursor(lanes=tuple((lane, self._reader.start()) for lane in self.lanes))

    def turn(self, cursor: Cursor) -> Cursor:
        epoch, lanes = cursor.epoch + 1, cursor.lanes
        if not self._reader.endless:
            lanes = tuple((lane, self._reader.turn(place, epoch)) for lane, place in lanes)
        return replace(cursor, epoch=epoch, batch=0, lanes=lanes, taken=0)

    @property
    def rule(self) -> Rule:
        return self._sizes, self._remainder, self._steps

    @property
    def per_pass(self) -> int | None:
        return self._steps

    def exclude(self, excluded: Exclusions, since: int) -> None:
        # what was known of later steps holds no more
        self._excluded = excluded
        self._marks = [m for m in self._marks if m.step <= since] or self._marks[:1]

    def restore(self, saved: Saved) -> tuple[Cursor, bool]:
        cursor = self._own(saved.cursor)
        other = cursor.step > 0 and not (
            saved.rule is not None
            and saved.rule[1:] == self.rule[1:]
            and agree(saved.rule[0], self._sizes, cursor.step)
        )
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
        try:
            for lane in self.lanes:
                self._reader.check(known[lane])
        except (TypeError, ValueError) as e:
            raise StateError(
                f"the state's lanes do not fit this dataset ({e}): it is another, or a mix in it "
                "got its first filter, flat_map or pack: let that filter or pack by a scan"
            ) from e
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

    rows_of = None

    def origins(self, start: int, stop: int) -> Iterator[tuple[Int64s, Origin]]:
        for step in range(start, stop):
            take = self.take(self.locate(step))
            if take is not None:
                yield np.full(len(take.block), step), take.block.origin

    def take(self, cursor: Cursor) -> Take | None:
        parts: list[Block] = []
        slots: list[Int64s] = []
        lanes: list[Lane] = []
        batch = size_at(self._sizes, cursor.step)
        each = batch // self._chain.lanes
        for k, (lane, place) in enumerate(cursor.lanes):
            self._reader.keep(lane, place)
            found, place = self._pull(lane, place, cursor, each)
            parts += found
            lanes.append((lane, place))
            slots.append(k * each + np.arange(sum(len(p) for p in found)))
        got = sum(len(s) for s in slots)
        if not self._enough(got, cursor):
            return None
        block = Block.concat(parts) if parts else Block([], Origin.none())
        pad = self._remainder == "pad"
        after = Cursor(
            cursor.rows + (batch if pad or not self.alone else got),
            cursor.step + 1,
            cursor.epoch,
            cursor.batch + 1,
            tuple(lanes),
            cursor.taken + each,
        )
        self._mark(after := self.turn(after) if self._over(after) else after)
        rows = self._rows[batch] if pad or not self.alone else np.arange(got)
        places = np.concatenate(slots) if pad else np.arange(got)
        total = batch if pad or not self.alone else got
        return Take(block, places, rows, total, after, kept=True)

    # ---- ends

    def _enough(self, got: int, cursor: Cursor) -> bool:
        # whether what was found is a batch: always, once a pass turns over in time
        batch = size_at(self._sizes, cursor.step)
        full = got == batch // self._chain.lanes * len(self.lanes)
        if full or (self._remainder == "pad" and (self._steps or not self._over(cursor))):
            return True
        if self._steps is not None:
            raise StreamEndError(
                f"steps={self._steps}, but pass {cursor.epoch} ends after {cursor.batch} batches "
                f'of {batch}. Lower steps=, repeat() the dataset, or use remainder="pad".'
            )
        return self._remainder == "keep" and got > 0

    def _over(self, cursor: Cursor) -> bool:
        """Whether the pass holds no further batch at a cursor."""
        if self._steps is not None:
            return cursor.batch >= self._steps
        if self._reader.endless:
            return False
        if self._remainder == "pad" and not self.alone:
            # every host must come to the same answer, so each counts all lanes
            lanes = range(self._chain.lanes)
            return all(self._count(lane, cursor.epoch) <= cursor.taken for lane in lanes)
        each = size_at(self._sizes, cursor.step) // self._chain.lanes
        want = each if self._remainder == "drop" else 1
        left = [self._has(lane, at, cursor, want) for lane, at in cursor.lanes]
        return not (all(left) if self._remainder == "drop" else any(left))

    # ---- lanes

    def _pull(
        self, lane: int, place: Place, cursor: Cursor, want: int
    ) -> tuple[list[Block], Place]:
        """Up to `want` rows of the cursor's pass; what is excluded is left out on the way."""
        if not self._excluded.begin(cursor.step):
            return self._reader.pull(lane, place, cursor.epoch, want)
        good, passed = list[Block](), 0
        while want:
            found, place = self._reader.pull(lane, place, cursor.epoch, want)
            for block in found:
                left = np.flatnonzero(~self._excluded.among(block.origin, cursor.step))
                good += [block.take(left)] if len(left) else []
                want, passed = want - len(left), 0 if len(left) else passed + len(block)
            if not found:
                break
            if passed > PATIENCE + 4 * min(self._reader.cycle, 1 << 32):
                raise StreamEndError(
                    f"all of the last {passed} rows of lane {lane} are excluded: exclude fewer"
                )
        return good, place

    def _has(self, lane: int, place: Place, cursor: Cursor, want: int) -> bool:
        if not self._excluded.begin(cursor.step):
            return self._reader.has(lane, place, cursor.epoch, want)
        return sum(map(len, self._pull(lane, place, cursor, want)[0])) == want

    def _own_lanes(self) -> tuple[int, ...]:
        found = {self._lanes_of(size, rows) for size, rows in self._rows.items()}
        if len(found) > 1:
            raise LanesError(
                f"this process would have other lanes as the batch size changes: {sorted(found)}. "
                "Give it the same part of each batch."
            )
        return found.pop()

    def _lanes_of(self, size: int, rows: Int64s) -> tuple[int, ...]:
        each = size // self._chain.lanes
        lanes = np.unique(rows // each)
        whole = (lanes[:, None] * each + np.arange(each)).ravel()
        if not np.array_equal(whole, rows):
            raise LanesError(
                f"this process needs rows {rows[0]}..{rows[-1]} of {size}, "
                f"no whole lanes: the dataset has {self._chain.lanes} of {each} rows each "
                "(saved states depend on it). New run: .lanes(number of hosts)."
            )
        return tuple(int(lane) for lane in lanes)

    # ---- ahead

    def expect(self, cursor: Cursor, jump: Jump) -> None:
        # run by run, so that none is short of blocks while another has many; skipped steps are
        # read too: only their rows say where the next ones begin
        if not self._executor.room():
            return
        spots = [s for at in cursor.lanes for s in self._reader.spots(*at, cursor.epoch)]
        behind = [(s.blocks.begun(s.lane, s.number), i) for i, s in enumerate(spots)]
        behind = [(ahead / spots[i].share, i, ahead) for ahead, i in behind]
        heapify(behind)
        for _ in range(max(BEGIN, 2 * len(behind))):
            if not behind or not self._executor.room():
                return
            _, i, ahead = heappop(behind)
            s = spots[i]
            if (s.end is None or s.number + ahead < s.end) and ahead < FAR:
                s.blocks.begin(s.lane, s.number + ahead)
                ahead += s.blocks.begun(s.lane, s.number + ahead)  # some may have been begun
                heappush(behind, (ahead / s.share, i, ahead))

    def forget(self) -> None:
        self._reader.cancel()
