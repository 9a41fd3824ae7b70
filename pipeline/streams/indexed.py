"""Batches of an indexed dataset: arithmetic says which rows, one read brings them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.block import Int64s, Origin
from pipeline.chain import Chain
from pipeline.sampling.passes import Cursor, Passes
from pipeline.streams.take import Share, Take
from pipeline.types import At
from pipeline.workers.work import Executor, Rows


class IndexedStream:
    """Batches of an indexed dataset: arithmetic, then one read."""

    def __init__(
        self, chain: Chain, executor: Executor, share: Share, passes: Passes, pad: bool
    ) -> None:
        self._chain, self._executor, self._share = chain, executor, share
        self._passes, self._pad = passes, pad
        self._anchor = Cursor()

    def start(self) -> Cursor:
        return Cursor()

    def locate(self, step: int) -> Cursor:
        return self._passes.locate(step, self._anchor)

    def anchor(self, cursor: Cursor) -> None:
        self._anchor = cursor

    def turn(self, cursor: Cursor) -> Cursor:
        return replace(cursor, epoch=cursor.epoch + 1, batch=0)

    def take(self, cursor: Cursor) -> Take | None:
        if self._passes.per_pass == 0:
            return None
        rows, total, mine = self._mine(cursor)
        block = self._executor.submit(Rows(rows)).result()
        return Take(block, np.arange(len(rows)), mine, total, self._passes.after(cursor))

    def origin(self, cursor: Cursor) -> Origin:
        rows, _, _ = self._mine(cursor)
        return self._chain.origin(At.of_rows(rows, max(1, self._chain.length)))

    def _mine(self, cursor: Cursor) -> tuple[Int64s, int, Int64s]:
        start, stop = self._passes.rows(cursor)
        total = self._passes.batch_size if self._pad else stop - start
        mine = self._share.rows(total)
        return start + mine[mine < stop - start], total, mine
