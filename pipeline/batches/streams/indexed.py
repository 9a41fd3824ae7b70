"""Batches of an indexed dataset: arithmetic says which rows, one read brings them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from pipeline.batches.streams.replace import replaced, stood_in
from pipeline.batches.streams.take import Jump, Share, Take
from pipeline.block import Block, Int64s, Origin
from pipeline.checkpoint.state import Saved
from pipeline.nodes import Part
from pipeline.provenance.exclusions import Exclusions
from pipeline.sampling.passes import Cursor
from pipeline.sampling.sizes import SizedPasses
from pipeline.types import At
from pipeline.workers.work import Executor, Pending, Rows

BEGIN = 8  # works begun at a time: each batch handed out begins some more
GROUP = 64  # batches of one work at most


class IndexedStream:
    """Batches of an indexed dataset: arithmetic, then one read."""

    def __init__(
        self, chain: Part, executor: Executor, share: Share, passes: SizedPasses, pad: bool
    ) -> None:
        self._chain, self._executor, self._share = chain, executor, share
        self._passes, self._pad = passes, pad
        self._anchor = self._tail = Cursor()
        self._excluded = Exclusions()
        self._ahead: dict[Cursor, tuple[Pending, int, bool]] = {}  # with first row, and if alone

    def start(self) -> Cursor:
        return Cursor()

    def locate(self, step: int) -> Cursor:
        return self._passes.locate(step, self._anchor)

    def advance(self, cursor: Cursor, step: int) -> Cursor:
        left = self._passes.left(cursor)
        if left == 0:
            return self.turn(cursor)
        return self._passes.locate(step if left is None else min(step, cursor.step + left), cursor)

    def exclude(self, excluded: Exclusions, since: int) -> None:
        self._excluded = excluded

    def restore(self, saved: Saved) -> tuple[Cursor, bool]:
        cursor = replace(saved.cursor, lanes=(), taken=0)
        other = not saved.since and not self._passes.reaches(cursor)
        if self._passes.per_pass != 0:
            cursor = self._passes.locate(cursor.step, cursor)  # of a full pass, the next one
        self._anchor = cursor if other or saved.since else Cursor()
        return cursor, other

    @property
    def per_pass(self) -> int | None:
        return self._passes.per_pass

    rule = None
    alone = True  # arithmetic needs no one else's state

    def turn(self, cursor: Cursor) -> Cursor:
        return replace(cursor, epoch=cursor.epoch + 1, batch=0)

    def take(self, cursor: Cursor) -> Take | None:
        if self._passes.per_pass == 0:
            return None
        rows, total, mine = self._mine(cursor)
        block, after = self._evaluated(cursor, rows), self._passes.after(cursor)
        return Take(block, np.arange(len(rows)), mine, total, after, self._executor.fresh)

    def _evaluated(self, cursor: Cursor, rows: Int64s) -> Block:
        return self._settled(cursor, rows, self._ready(cursor, rows))

    def _settled(self, cursor: Cursor, rows: Int64s, block: Block) -> Block:
        # a row that fails is replaced by its neighbour, which may be excluded
        if not self._chain.skips or not self._excluded.begin(cursor.step):
            return block
        return stood_in(self._chain, rows, block, self._read, self._excluded, cursor.step)

    def _ready(self, cursor: Cursor, rows: Int64s) -> Block:
        if cursor in self._ahead:
            pending, start, alone = self._ahead.pop(cursor)
            try:
                block = pending.result()
                return block if alone else block.slice(start, start + len(rows))
            except Exception:
                # of a group, another batch's rows may be at fault: from now on each is read alone
                if alone:
                    raise
                self._ahead = {c: part for c, part in self._ahead.items() if part[0] is not pending}
        return self._read(rows)

    def _read(self, rows: Int64s) -> Block:
        return self._executor.submit(Rows(rows), urgent=True).result()

    def expect(self, cursor: Cursor, jump: Jump) -> None:
        if self._passes.per_pass == 0:
            return
        if not self._ahead:
            self._tail = cursor
        for _ in range(BEGIN):
            if self._tail.epoch != cursor.epoch or not self._executor.room():
                return
            self._submit(cursor.epoch, jump)

    def _submit(self, epoch: int, jump: Jump) -> None:
        # the next batches of the pass as one work
        found: dict[Cursor, Int64s] = {}
        most = 1
        while self._tail.epoch == epoch and len(found) < most:
            rows, _, _ = self._mine(self._tail)
            most = min(GROUP, self._executor.group(len(rows)))
            found[self._tail] = rows
            self._tail = jump(self._passes.after(self._tail))
        pending = self._executor.submit(Rows(np.concatenate(list(found.values()))))
        start = 0
        for cursor, rows in found.items():
            self._ahead[cursor] = pending, start, len(found) == 1
            start += len(rows)

    def forget(self) -> None:
        for pending, _, _ in self._ahead.values():
            pending.cancel()
        self._ahead.clear()

    def origin(self, cursor: Cursor) -> Origin:
        rows, _, _ = self._mine(cursor)
        if self._chain.skips:  # only reading tells which rows stand in for others
            return self._settled(cursor, rows, self._read(rows)).origin
        return self._chain.origin(At.of_rows(rows, max(1, self._chain.length)))

    @property
    def rows_of(self) -> Callable[[int], tuple[int, int]] | None:
        if self._chain.skips:
            return None
        return lambda step: self._passes.rows(self.locate(step))

    def origins(self, start: int, stop: int) -> Iterator[tuple[Int64s, Origin]]:
        if self._chain.skips:
            for step in range(start, stop):
                origin = self.origin(self.locate(step))
                yield np.full(len(origin), step), origin
            return
        for first in range(start, stop, GROUP):
            steps = range(first, min(stop, first + GROUP))
            spans = [self._passes.rows(self.locate(step)) for step in steps]
            parts = [
                replaced(self._chain, np.arange(*span), self._excluded, step)
                for step, span in zip(steps, spans, strict=True)
            ]
            at = At.of_rows(np.concatenate(parts), max(1, self._chain.length))
            yield np.repeat(np.array(steps), [len(p) for p in parts]), self._chain.origin(at)

    def _mine(self, cursor: Cursor) -> tuple[Int64s, int, Int64s]:
        start, stop = self._passes.rows(cursor)
        total = self._passes.size(cursor.step) if self._pad else stop - start
        mine = self._share.rows(total)
        rows = start + mine[mine < stop - start]
        return replaced(self._chain, rows, self._excluded, cursor.step), total, mine
