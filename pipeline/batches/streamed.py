"""Batches of a streamed dataset: each lane gives its next rows, read block by block."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from copy import copy
from heapq import heapify, heappop, heappush
from typing import cast

import numpy as np

from pipeline.batches.common_end import CommonEnd
from pipeline.batches.lane_cuts import LaneCuts
from pipeline.batches.skipping import jumps_of
from pipeline.batches.stream import Settle, Share, Take
from pipeline.batches.without import Without
from pipeline.block import Block, Int64s, Origin
from pipeline.checkpoint.position import Position
from pipeline.checkpoint.state import SavedState
from pipeline.errors import BatchError, LanesError, PositionError, StateError, StreamEndError
from pipeline.nodes import FAR, Part, PassRows, Path, Pending, Reader
from pipeline.provenance.exclusions import Exclusions
from pipeline.sampling.cursor import Cursor, Lane, Place
from pipeline.sampling.cuts import NO_CUTS
from pipeline.sampling.sizes import Rule, agree, size_at
from pipeline.workers.serial import KEPT, Buffers
from pipeline.workers.work import Executor, LaneBlock

BEGIN = 8  # blocks begun at a time, at most (two for each run of blocks, if these are more)
CHUNK = 256  # skipped rows of a lane that are read at a time, at most
MARKS = 256  # cursors that are remembered, at most


class LaneStream:
    """Batches of a streamed dataset: the next rows of each of this process's lanes."""

    def __init__(self, part: Part, executor: Executor, share: Share, rule: Rule) -> None:
        self._part, self._executor, self.rule = part, executor, rule
        self._empty = Buffers(KEPT)  # batches that span blocks are laid into earlier ones' memory
        self._sizes, self._remainder, self._steps = rule
        self._size = self._sizes[0][1] if len(self._sizes) == 1 else None
        self._rows = {size: share.rows(size) for _, size in self._sizes}
        self.lanes = self._own_lanes()
        self.alone = len(self.lanes) == part.lanes
        self._count = PassRows(self._open)
        self._view(Position(self.start()), [self.start()])
        # without a common end, hosts would stop at different steps
        common = self._steps is not None or self._remainder == "pad"
        self.ends_together = self._reader.endless or common

    def _view(self, position: Position, marks: list[Cursor]) -> None:
        self._reader, self._marks = self._open(), marks
        self._position, self._anchor = position, position.anchor
        self.jumps = jumps_of(position.skips, self.rule, self._anchor)
        self._excluded = Exclusions(self._part.components, position.exclusions)
        self._count_remaining = PassRows(self._open_remaining)
        self._common_end: CommonEnd | None = None
        lanes, endless = self._part.lanes, self._reader.endless
        cuts = LaneCuts(position.skips, self.rule, self._anchor, lanes, self._lane_rows, endless)
        self._cuts = cuts if cuts.any else None

    def _open_remaining(self) -> Reader:
        return cast(Reader, Without(self._open(), self._excluded, self._position.cursor.step))

    def _open(self) -> Reader:
        def ask(part: Path, lane: int, number: int, urgent: bool) -> Pending:
            return self._executor.submit(LaneBlock(lane, number, part), urgent=urgent)

        return self._part.reader(ask)

    @property
    def per_pass(self) -> int | None:
        return self._steps

    # ---- positions

    def start(self) -> Cursor:
        start = self._open().start()
        return Cursor(lanes=tuple((lane, start) for lane in self.lanes))

    def at(self, position: Position) -> LaneStream:
        marks = [position.cursor] if position.anchor.step else [self.start(), position.cursor]
        if position.anchor is self._anchor:
            # steps count as before, so marks stay true: after a new exclusion, those before it
            same = position.exclusions == self._position.exclusions
            known = [m for m in self._marks if same or m.step <= position.cursor.step]
            marks = known or marks
        other = copy(self)
        other._view(position, [m for i, m in enumerate(marks) if not i or m.step > marks[0].step])
        if position.anchor is self._anchor and self._common_end is not None:
            other._common_end = self._common_end.at(position, other._start_of_all)
        return other

    def turn(self, cursor: Cursor) -> Cursor:
        epoch, lanes = cursor.epoch + 1, cursor.lanes
        if not self._reader.endless:
            lanes = tuple((lane, self._reader.turn(place, epoch)) for lane, place in lanes)
        return cursor._replace(epoch=epoch, batch=0, lanes=lanes, taken=0)

    def restored(self, saved: SavedState) -> Position:
        old, rule = saved.position, saved.rule
        position = old._replace(cursor=self._own(old.cursor))
        self._check_blocks(saved, position.cursor)
        cursor, anchor = position.cursor, position.anchor
        same = cursor.step <= anchor.step or (
            rule == self.rule
            or (
                rule is not None
                and rule[1:] == self.rule[1:]
                and agree(rule[0], self._sizes, anchor.step, cursor.step)
            )
        )
        if same and anchor.step < max(1, cursor.step):
            # of an edited mix, a pass may end where none ended before
            edited = cursor.batch and not saved.same and self.at(position)._over(cursor)
            return position._replace(cursor=self.turn(cursor)) if edited else position
        stream = self.at(position._replace(anchor=cursor._replace(lanes=())))
        if cursor.batch and stream._over(cursor):
            cursor = self.turn(cursor)
        return position._replace(cursor=cursor, anchor=cursor._replace(lanes=()))

    def _check_blocks(self, saved: SavedState, cursor: Cursor) -> None:
        reader, epoch = self._reader, cursor.epoch
        for _, place in cursor.lanes if reader.arithmetic else ():
            first, last = reader.turn(place, epoch)[0], reader.turn(place, epoch + 1)[0]
            saved.check_within("block", place[0], first, last)

    def _own(self, cursor: Cursor) -> Cursor:
        known = dict(cursor.lanes)
        missing = [lane for lane in self.lanes if lane not in known]
        if missing:
            raise StateError(
                f"the state knows lanes {sorted(known)} of {self._part.lanes}, this process needs "
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
        return cursor._replace(lanes=tuple((lane, known[lane]) for lane in self.lanes))

    def _mark(self, cursor: Cursor) -> None:
        # seeks start from the nearest mark; of too many every second is dropped, never the first
        nearest = self._nearest(cursor.step)
        if nearest < 0 or self._marks[nearest].step == cursor.step:
            return
        self._marks.insert(nearest + 1, cursor)
        if len(self._marks) > MARKS:
            self._marks = self._marks[::2]

    def _nearest(self, step: int) -> int:
        return bisect_right(self._marks, step, key=lambda c: c.step) - 1

    def locate(self, step: int) -> Cursor:
        nearest = self._nearest(step)
        if nearest < 0:
            taken, since = self._marks[0].step, self._anchor.step
            if step >= since:
                raise PositionError(
                    f"step {step} lies before step {taken}, where this loader's state was saved, "
                    f"and batches have their size and rule since step {since} only: it cannot "
                    "count back. Use a state from that step or before."
                )
            raise PositionError(
                f"step {step} lies before step {taken}, where this loader took over "
                "a state of other batches. For earlier steps use a loader of the old batch size "
                "and rule, or a state from before that step."
            )
        cursor, empty = self._marks[nearest], 0
        while cursor.step < step:
            self.prefetch(cursor, lambda after: after)
            take = self.take(cursor)
            empty = 0 if take or self.is_cut(cursor) else empty + 1
            self._refuse_barren(empty, step)
            cursor = take.after if take else self.turn(cursor)
        while self._cuts is not None and self.take(cursor) is None and self.is_cut(cursor):
            cursor = self.turn(cursor)
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

    def jump(self, cursor: Cursor, step: int) -> Cursor:
        empty = 0
        while cursor.step < step:
            after = self.advance(cursor, step)
            empty = 0 if after.step > cursor.step or self.is_cut(cursor) else empty + 1
            self._refuse_barren(empty, step)
            cursor = after
        return cursor

    def is_cut(self, cursor: Cursor) -> bool:
        return self._cuts is not None and self._cuts.cut(cursor.epoch)

    def _refuse_barren(self, empty: int, step: int) -> None:
        if empty > 1:
            raise StreamEndError(f"there is no step {step}: a whole pass holds no batch")

    # ---- provenance

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

    # ---- batches

    def take(self, cursor: Cursor) -> Take | None:
        batch = self._batch(cursor.step)
        each, first = batch // self._part.lanes, self._first(cursor)
        spans = [(first, first + each)]
        if self._cuts:
            spans = self._cuts.of_pass(cursor.epoch).spans(first, each)
        parts: list[Block] = []
        slots: list[Int64s] = []
        lanes: list[Lane] = []
        for k, (lane, place) in enumerate(cursor.lanes):
            self._reader.keep(lane, place)
            found, place = self._pull(lane, place, cursor, spans)
            parts += found
            lanes.append((lane, place))
            slots.append(k * each + np.arange(sum(len(p) for p in found)))
        counts = [len(s) for s in slots]
        if self._cuts and min(counts, default=each) < each and self._cuts.ended(cursor.epoch):
            return self.take(cursor)
        got = sum(counts)
        if not self._enough(counts, cursor):
            return None
        block = Block.concat(parts, self._empty) if parts else Block([], Origin.none())
        pad = self._remainder == "pad"
        past = spans[-1][1] - first  # rows that each lane moves by, with those cut out
        after = Cursor(
            cursor.rows
            + (batch if pad or not self.alone else got)
            + (past - each) * self._part.lanes,
            cursor.step + 1,
            cursor.epoch,
            cursor.batch + 1,
            tuple(lanes),
            cursor.taken + past,
        )
        self._mark(after := self.turn(after) if self._over(after) else after)
        rows = self._rows[batch] if pad or not self.alone else np.arange(got)
        places = np.concatenate(slots) if pad else np.arange(got)
        total = batch if pad or not self.alone else got
        return Take(block, 0, len(block), places, rows, total, after, kept=True)

    def _batch(self, step: int) -> int:
        # rows of the global batch at a step
        return self._size or size_at(self._sizes, step)

    def _first(self, cursor: Cursor) -> int:
        # rows that each lane has given: in this pass, or in all if a pass never ends
        return cursor.rows // self._part.lanes if self._reader.endless else cursor.taken

    def _pull(
        self, lane: int, place: Place, cursor: Cursor, spans: list[tuple[int, int]]
    ) -> tuple[list[Block], Place]:
        # a lane's rows within the spans; rows between spans are read and dropped
        reader, blocks, at = self._remaining(cursor.step), list[Block](), self._first(cursor)
        for start, stop in spans:
            while at < stop:
                want = stop - at if at >= start else min(CHUNK, start - at)
                found, place = reader.pull(lane, place, cursor.epoch, want)
                blocks += found if at >= start else []
                got = sum(map(len, found))
                at += got
                if got < want:
                    return blocks, place
        return blocks, place

    def _remaining(self, step: int) -> Reader | Without:
        active = self._position.exclusions and self._excluded.active(step)
        return Without(self._reader, self._excluded, step) if active else self._reader

    # ---- ends

    def _enough(self, counts: list[int], cursor: Cursor) -> bool:
        # whether the rows that each lane gave are a batch
        batch, got = self._batch(cursor.step), sum(counts)
        each = batch // self._part.lanes
        if got == each * len(self.lanes):
            return True
        if self._remainder == "pad" and (self._steps or not self._over(cursor)):
            return True
        if self._steps is not None:
            raise StreamEndError(
                f"steps={self._steps}, but pass {cursor.epoch} ends after {cursor.batch} batches "
                f'of {batch}. Lower steps=, repeat() the dataset, or use remainder="pad".'
            )
        if self._remainder == "drop" and got and not cursor.batch and not self.is_cut(cursor):
            few = min(counts)
            lanes = f" of lane {self.lanes[counts.index(few)]}, which gives {each} of a batch"
            raise BatchError(
                f'remainder="drop" leaves nothing: batch_size={batch} is more than the {few} rows '
                f"of a pass{lanes if self._part.lanes > 1 else ''}. Use a smaller batch, "
                "repeat(), or another remainder."
            )
        return self._remainder == "keep" and got > 0

    def _over(self, cursor: Cursor) -> bool:
        """Whether the pass has no further batch at a cursor."""
        if self._steps is not None:
            return cursor.batch >= self._steps
        if self._reader.endless:
            return False
        over = self._all_given(cursor)
        met = over and self._cuts is not None and self._cuts.ended(cursor.epoch)
        return self._all_given(cursor) if met else over

    def _all_given(self, cursor: Cursor) -> bool:
        # whether the lanes have too few further rows for a batch
        first = self._first(cursor)
        cuts = self._cuts.of_pass(cursor.epoch) if self._cuts else NO_CUTS
        if self._remainder == "pad" and not self.alone:
            # every host must come to the same answer, so each looks at all lanes
            if self._excluded.active(cursor.step):
                return self._ends_for_all(cursor)
            every = range(self._part.lanes)
            return all(cuts.outside(first, self._count(x, cursor.epoch)) <= 0 for x in every)
        want = self._batch(cursor.step) // self._part.lanes if self._remainder == "drop" else 1
        want = want if cuts is NO_CUTS else cuts.after(first, want) - first
        reader = self._remaining(cursor.step)
        left = [_has(reader, lane, at, cursor.epoch, want) for lane, at in cursor.lanes]
        return not (all(left) if self._remainder == "drop" else any(left))

    def _lane_rows(self, lane: int, epoch: int) -> int:
        # rows of a lane in a whole pass
        count = self._count_remaining if self._excluded.entries else self._count
        return count(lane, epoch)

    def _ends_for_all(self, cursor: Cursor) -> bool:
        if self._common_end is None:
            every = copy(self)
            every.lanes, every.alone = tuple(range(self._part.lanes)), True
            every._empty = Buffers(KEPT)
            every._view(self._position, [])
            self._common_end = CommonEnd(every, self._start_of_all)
        return self._common_end(cursor)

    def _start_of_all(self, cursor: Cursor) -> Cursor:
        # where all lanes stand at the start of a pass; or, if batches before the anchor had other
        # sizes, at the anchor, where each lane had passed as many rows
        reader, anchor, epoch = self._open(), self._anchor, cursor.epoch
        first = cursor.step - cursor.batch
        if not reader.arithmetic and not anchor.step:
            return Cursor(lanes=tuple((x, reader.start()) for x in range(self._part.lanes)))
        begin = [(x, self._count.start(x, epoch)) for x in range(self._part.lanes)]
        if anchor.step <= first:
            return Cursor(step=first, epoch=epoch, lanes=tuple(begin))
        remaining = Without(reader, self._excluded, anchor.step - 1)
        given = [remaining.pull(x, at, epoch, anchor.taken)[1] for x, at in begin]
        return anchor._replace(lanes=tuple(zip(range(self._part.lanes), given, strict=True)))

    def begin(self, cursor: Cursor) -> None:
        """Count steps from a cursor on."""
        self._marks = [cursor]

    def is_over(self, cursor: Cursor) -> bool:
        """Whether the pass has no further batch at a cursor."""
        return self._over(cursor)

    # ---- lanes

    def _own_lanes(self) -> tuple[int, ...]:
        found = {self._lanes_of(size, rows) for size, rows in self._rows.items()}
        if len(found) > 1:
            raise LanesError(
                f"this process would have other lanes as the batch size changes: {sorted(found)}. "
                "Give it the same part of each batch."
            )
        return found.pop()

    def _lanes_of(self, size: int, rows: Int64s) -> tuple[int, ...]:
        each = size // self._part.lanes
        lanes = np.unique(rows // each)
        whole = (lanes[:, None] * each + np.arange(each)).ravel()
        if not np.array_equal(whole, rows):
            raise LanesError(
                f"this process needs rows {rows[0]}..{rows[-1]} of {size}, "
                f"no whole lanes: the dataset has {self._part.lanes} of {each} rows each "
                "(saved states depend on it). New run: .lanes(number of hosts)."
            )
        return tuple(int(lane) for lane in lanes)

    # ---- ahead

    def prefetch(self, cursor: Cursor, settle: Settle) -> None:
        # begin the next block of whichever run has the fewest begun, relative to its share of rows;
        # blocks of skipped steps are read too, as only their rows tell where the next step begins
        if not self._executor.has_capacity():
            return
        spots = [s for at in cursor.lanes for s in self._reader.spots(*at, cursor.epoch)]
        behind = [(s.blocks.begun(s.lane, s.number), i) for i, s in enumerate(spots)]
        behind = [(ahead / spots[i].share, i, ahead) for ahead, i in behind]
        heapify(behind)
        for _ in range(max(BEGIN, 2 * len(behind))):
            if not behind or not self._executor.has_capacity():
                return
            _, i, ahead = heappop(behind)
            s = spots[i]
            if (s.end is None or s.number + ahead < s.end) and ahead < FAR:
                s.blocks.begin(s.lane, s.number + ahead)
                ahead += s.blocks.begun(s.lane, s.number + ahead)  # some may have been begun
                heappush(behind, (ahead / s.share, i, ahead))

    def cancel(self) -> None:
        self._reader.cancel()


def _has(reader: Reader | Without, lane: int, place: Place, epoch: int, want: int) -> bool:
    # an error among rows to come waits until their batch is asked for: this one is whole
    try:
        return reader.has(lane, place, epoch, want)
    except Exception:
        return True
