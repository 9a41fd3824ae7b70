"""Batches of an indexed dataset: arithmetic says which rows, and one read brings them."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from pipeline.batches.hosts import HostShare
from pipeline.batches.skipping import jumps_of, old_skips, row_cuts
from pipeline.batches.stream import Settle, Share, Take
from pipeline.batches.substitutes import Substitutes
from pipeline.block import Block, Columns, Int64s, Origin
from pipeline.checkpoint.position import Position
from pipeline.checkpoint.state import SavedState
from pipeline.errors import PositionError
from pipeline.nodes import Part
from pipeline.sampling.cursor import Cursor
from pipeline.sampling.cuts import NO_CUTS, Cuts, Ranges
from pipeline.sampling.passes import passes_of
from pipeline.sampling.sizes import Rule, agree
from pipeline.types import ENDLESS, At
from pipeline.workers.work import Executor, Pending, Rows

BEGIN = 8  # works begun at a time, at most: each batch handed out begins some more
GROUP = 64  # batches of one work, at most
SPENT = 0.005  # seconds of arithmetic for works that are not needed soon, for each batch handed out


class _Rows(NamedTuple):
    # of one batch: this process's stream rows, their places in the batch (those of padding too),
    # the batch's number of rows, and the cursor after it
    rows: Int64s
    mine: Int64s
    total: int
    after: Cursor


class _Begun(NamedTuple):
    # a batch begun ahead: its cursor, its rows, the work that reads them, where they start among
    # the work's rows, and whether the work is for this batch alone
    at: Cursor
    part: _Rows
    pending: Pending
    start: int
    alone: bool


class IndexedStream:
    """Batches of an indexed dataset: arithmetic, then one read."""

    alone = True  # arithmetic needs no one else's state

    def __init__(
        self,
        part: Part,
        executor: Executor,
        share: Share,
        rule: Rule,
        position: Position | None = None,
    ) -> None:
        self._part, self._executor, self._share, self.rule = part, executor, share, rule
        position = position or Position()
        self._anchor, n = position.anchor, part.length
        skips = position.skips if n else ()
        self.jumps = jumps_of(skips, rule, self._anchor) if skips else ()
        cuts = row_cuts(skips, rule, self._anchor, n) if skips else ()
        self._passes = passes_of(rule, n, Cuts(cuts) if cuts else NO_CUTS)
        self._sole = share == HostShare(0, 1)
        self._pad, self._drop = rule[1] == "pad", rule[1] == "drop"
        excluded = position.exclusions
        self._substitutes = Substitutes(part, excluded) if excluded else None
        self._tail = Cursor()
        self._most = 1  # batches of the next work: few at first, so that the first comes soon
        self._ahead: dict[int, _Begun] = {}  # by step
        self._barren = self._passes.per_pass == 0
        self._numbers = np.arange(0)

    def check(self) -> None:
        """Raise BatchError if a pass would have no batch, or fewer than steps= says."""
        self._passes.check()

    @property
    def per_pass(self) -> int | None:
        return self._passes.per_pass

    def start(self) -> Cursor:
        return Cursor()

    # ---- positions

    def at(self, position: Position) -> IndexedStream:
        return IndexedStream(self._part, self._executor, self._share, self.rule, position)

    def restored(self, saved: SavedState) -> Position:
        old = saved.position
        cursor = old.cursor._replace(lanes=(), taken=0)
        n, skips = self._part.length, old.skips
        if n != ENDLESS:
            saved.check_within("row", cursor.rows, cursor.epoch * n, (cursor.epoch + 1) * n)
        if any(skip.rule is None for skip in skips):
            skips = old_skips(old, self.rule, n)
        position = old._replace(cursor=cursor, skips=skips)
        stream = self.at(position)
        # other sizes may reach the same row by chance: sizes that the state tells must agree too
        told = saved.rule is None or agree(
            saved.rule[0], self.rule[0], old.anchor.step, cursor.step
        )
        if not (told and stream._passes.reaches(cursor, old.anchor)):
            position = position._replace(anchor=cursor)
            stream = self.at(position)
        passes = stream._passes
        if cursor.batch and passes.per_pass != 0 and passes.left(cursor) == 0:
            cursor = passes.turn(cursor)
        anchor = cursor if position.anchor.step == cursor.step > 0 else position.anchor
        return position._replace(cursor=cursor, anchor=anchor)

    def locate(self, step: int) -> Cursor:
        return self._bounded(self._passes.locate(step, self._anchor))

    def advance(self, cursor: Cursor, step: int) -> Cursor:
        left = self._passes.left(cursor)
        if left is None or step < cursor.step + left:
            return self._bounded(self._passes.locate(step, cursor))
        if not left:
            return self.turn(cursor)
        return self._passes.after(self._passes.locate(cursor.step + left - 1, cursor))

    def jump(self, cursor: Cursor, step: int) -> Cursor:
        return self._bounded(self._passes.locate(step, cursor))

    def turn(self, cursor: Cursor) -> Cursor:
        return self._passes.turn(cursor)

    def is_cut(self, cursor: Cursor) -> bool:
        return self._passes.is_cut(cursor)

    def _bounded(self, cursor: Cursor) -> Cursor:
        if cursor.rows + self._passes.size(cursor.step) > ENDLESS:
            raise PositionError(
                f"step {cursor.step} begins at row {cursor.rows}, but rows are counted up to 2**62"
            )
        return cursor

    # ---- rows

    def take(self, cursor: Cursor) -> Take | None:
        begun = self._ahead.get(cursor.step)
        if begun is not None and begun.at is not cursor and begun.at != cursor:
            begun = None
        part = begun.part if begun else self._mine(cursor)
        if part is None:
            return None
        n, start = len(part.rows), 0
        whole = self._ready(begun) if begun else None
        if whole is None or begun is None:
            whole = self._read(part.rows)
        else:
            start = begun.start
        if self._substitutes is not None and self._part.skips:
            block = whole.slice(start, start + n)
            whole = self._substitutes.block(part.rows, block, self._read, cursor.step)
            start = 0
        slots, own = self._every(n), self._executor.fresh or (n == len(whole) and _is_own(whole))
        return Take(whole, start, start + n, slots, part.mine, part.total, part.after, own)

    def _every(self, n: int) -> Int64s:
        # int64[n], from 0 on
        if len(self._numbers) < n:
            self._numbers = np.arange(2 * n)
            self._numbers.flags.writeable = False
        return self._numbers[:n]

    def _mine(self, cursor: Cursor) -> _Rows | None:
        # None if the cursor's pass has no further batch
        part = self._all_mine(cursor)
        if part is None or self._substitutes is None:
            return part
        return part._replace(rows=self._remaining(part.rows, cursor.step))

    def _all_mine(self, cursor: Cursor) -> _Rows | None:
        # as `_mine`, before substitutes take the place of excluded rows
        spans = self._passes.spans(cursor)
        count, size = _count(spans), self._passes.size(cursor.step)
        if not count or (self._drop and count < size):
            return None
        total = size if self._pad else count
        mine = self._places(total)
        own = mine if total == count else mine[mine < count]
        rows = spans[0][0] + own if len(spans) == 1 else _rows(spans)[own]
        return _Rows(rows, mine, total, self._passes.after(cursor))

    def _remaining(self, rows: Int64s, step: int) -> Int64s:
        return self._substitutes.rows(rows, step) if self._substitutes else rows

    def _places(self, total: int) -> Int64s:
        # where this process's rows stand in a batch of so many rows
        return self._every(total) if self._sole else self._share.rows(total)

    def _ready(self, begun: _Begun) -> Block | None:
        # the rows of a work; None where the batch must be read by itself
        try:
            block = begun.pending.result()
        except Exception:
            # a row of another batch of the group may have failed: read each batch by itself
            self._ahead = {
                c: each for c, each in self._ahead.items() if each.pending is not begun.pending
            }
            if begun.alone:
                raise
            return None
        del self._ahead[begun.at.step]  # only now: after an interrupt it is asked for again
        return block

    def _read(self, rows: Int64s) -> Block:
        return self._executor.submit(Rows(rows), urgent=True).result()

    # ---- ahead

    def prefetch(self, cursor: Cursor, settle: Settle) -> None:
        started = None
        for _ in range(BEGIN):
            if self._barren or not self._executor.has_capacity():
                return
            started = started or time.perf_counter()
            if len(self._ahead) > GROUP and time.perf_counter() - started > SPENT:
                return
            if not self._ahead:
                self._tail = cursor
            if self._tail.epoch != cursor.epoch or not self._submit(cursor.epoch, settle):
                return

    def _submit(self, epoch: int, settle: Settle) -> bool:
        # the next batches of the pass as one work
        tail = self._tail
        part = self._all_mine(tail) if tail.epoch == epoch else None
        if part is None:
            return False
        found = self._group(tail, part, settle)
        alone = len(found) == 1
        rows = np.concatenate([part.rows for _, part in found]) if not alone else found[0][1].rows
        try:
            rows = self._remaining(rows, tail.step)
        except PositionError:  # a row has no substitute: an error when its batch is asked for
            if alone:
                return False
            self._most = 1
            return True
        pending = self._executor.submit(Rows(rows))
        self._tail, self._most = settle(found[-1][1].after), min(GROUP, 2 * len(found))
        start = 0
        for at, part in found:
            stop = start + len(part.rows)
            part = part if self._substitutes is None else part._replace(rows=rows[start:stop])
            self._ahead[at.step] = _Begun(at, part, pending, start, alone)
            start = stop
        return True

    def _group(self, at: Cursor, part: _Rows, settle: Settle) -> list[tuple[Cursor, _Rows]]:
        # the batch at a cursor and the next ones of its pass, for one work: one size of work, and
        # one set of exclusions in force
        most = min(self._most, self._executor.group(len(part.rows)))
        stop = self._substitutes.until(at.step) if self._substitutes else None
        found, epoch = [(at, part)], at.epoch
        while len(found) < most:
            at = settle(found[-1][1].after)
            if at.epoch != epoch or (stop is not None and at.step >= stop):
                break
            more = self._full(at, most - len(found), stop)
            if not more and (following := self._all_mine(at)) is not None:
                more = [(at, following)]
            if not more:
                break
            found += more
        return found

    def _full(self, at: Cursor, most: int, stop: int | None) -> list[tuple[Cursor, _Rows]]:
        # the next full batches of a pass, of one size, all at once: those before step `stop`, and
        # before steps that are skipped
        jump = bisect_right(self.jumps, at.step, key=lambda jump: jump[0])
        stops = [self.jumps[jump][0]] if jump < len(self.jumps) else []
        stops += [] if stop is None else [stop]
        afters = self._passes.full(at, min([most, *(stop - at.step for stop in stops)]))
        if not afters:
            return []
        size, starts = afters[0].rows - at.rows, [at, *afters[:-1]]
        mine = self._places(size)
        rows = at.rows + np.arange(len(afters))[:, None] * size + mine
        parts = [_Rows(own, mine, size, after) for own, after in zip(rows, afters, strict=True)]
        return list(zip(starts, parts, strict=True))

    def cancel(self) -> None:
        for begun in self._ahead.values():
            begun.pending.cancel()
        self._ahead.clear()

    # ---- provenance

    def origin(self, cursor: Cursor) -> Origin:
        take = self.take(cursor) if self._part.skips else None
        if take is not None:  # only reading tells which rows are substitutes
            return take.block.origin
        part = self._mine(cursor)
        rows = np.zeros(0, np.int64) if part is None else part.rows
        return self._part.origin(At.of_rows(rows, max(1, self._part.length)))

    @property
    def rows_of(self) -> Callable[[int], Ranges] | None:
        if self._part.skips:
            return None
        return lambda step: tuple(self._passes.spans(self.locate(step)))

    def origins(self, start: int, stop: int) -> Iterator[tuple[Int64s, Origin]]:
        if self._part.skips:
            for step in range(start, stop):
                origin = self.origin(self.locate(step))
                yield np.full(len(origin), step), origin
            return
        for first in range(start, stop, GROUP):
            steps = range(first, min(stop, first + GROUP))
            parts = [
                self._remaining(_rows(self._passes.spans(self.locate(step))), step)
                for step in steps
            ]
            at = At.of_rows(np.concatenate(parts), max(1, self._part.length))
            yield np.repeat(np.array(steps), [len(p) for p in parts]), self._part.origin(at)


def _is_own(block: Block) -> bool:
    # whether nobody else refers to its memory, nor to objects in it
    values = block.values
    return isinstance(values, Columns) and values.own and values.plain


def _count(spans: list[tuple[int, int]]) -> int:
    if len(spans) == 1:
        return spans[0][1] - spans[0][0]
    return sum(stop - start for start, stop in spans)


def _rows(spans: list[tuple[int, int]]) -> Int64s:
    return np.concatenate([np.arange(*span, dtype=np.int64) for span in spans])
