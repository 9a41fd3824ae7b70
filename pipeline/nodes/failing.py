"""What is read where some rows fail: all rows, or those that can be read, as the dataset says."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Block, Int64s, Origin
from pipeline.meter import METER
from pipeline.nodes.faults import patiently, survivors
from pipeline.nodes.node import Node
from pipeline.nodes.scope import Path, Scope
from pipeline.types import At, Transform

MOST_BAD = 1 << 20  # rows that are remembered
Epoch = tuple[Path, Path, int, int]
"""Where a part stands, how often it was drawn, and the epoch whose order holds."""

Pieces = list[tuple[Int64s, Block]]
"""Some of the rows asked for: which, and what reading them gave."""


def good_rows(node: Node, at: At, scope: Scope) -> tuple[Pieces, dict[int, Exception]]:
    """The rows of a node that can be read, and the errors of the others, which are logged."""
    good, bad = survivors(lambda i: node.read(at.take(i), scope), np.arange(len(at.index)))
    if bad:
        origin = node.origin(at.take(list(bad)), scope)
        scope.skips.say_all(scope.components, origin, list(bad.values()))
    return good, bad


class BadRows:
    """The rows of an indexed part that are known to fail, so that none is looked at twice."""

    def __init__(self) -> None:
        self._after: dict[Epoch, dict[int, int]] = {}  # of each bad row, one to look at next
        self._errors: dict[Epoch, Exception] = {}

    def add(self, epoch: Epoch, index: int, error: Exception) -> None:
        """Remember a row."""
        if sum(map(len, self._after.values())) >= MOST_BAD:
            self._after.clear()
        self._after.setdefault(epoch, {})[index] = index + 1
        self._errors.setdefault(epoch, error)

    def forget(self, rows: Iterable[tuple[Epoch, int]]) -> None:
        """Forget rows, so that they are tried again."""
        for epoch, index in rows:
            self._after.get(epoch, {}).pop(index, None)

    def among(self, epochs: list[Epoch], at: At) -> NDArray[np.bool_]:
        """bool[n]: which rows are known to fail."""
        if not self._after:
            return np.zeros(len(at.index), bool)
        known = zip(epochs, at.index.tolist(), strict=True)
        return np.array([i in self._after.get(epoch, ()) for epoch, i in known], bool)

    def next(self, epoch: Epoch, index: int, first: int, end: int) -> int:
        """The first row from a row on, round the epoch `[first, end)`, not known to fail.

        Raises:
            Exception: all of them do; what one of them failed with.
        """
        found = self._after_run(epoch, index)
        if found >= end:
            found = self._after_run(epoch, first)
            if found >= index:
                raise self._errors[epoch]
        return found

    def _after_run(self, epoch: Epoch, index: int) -> int:
        after, passed = self._after.get(epoch, {}), list[int]()
        while index in after:
            passed.append(index)
            index = after[index]
        for i in passed:  # the next one who asks is there at once
            after[i] = index
        return index


def in_order(pieces: Pieces) -> Block:
    """Pieces end to end, their rows in the order in which they were asked for."""
    if not pieces:
        return Block([], Origin.none())
    rows = np.concatenate([rows for rows, _ in pieces])
    return Block.concat([block for _, block in pieces]).take(np.argsort(rows))


def applied(transform: Transform, number: int, block: Block, scope: Scope) -> Block:
    """A block through stage `number` of a part; rows that fail are left out, if the part says so.

    Rows of the block have no positions any more.
    """
    site, name = scope.site(number, transform)

    def apply(block: Block) -> Block:
        return METER.timed(name, patiently, transform.apply, block, site)

    if not scope.skipping:
        return apply(block)
    every = np.arange(len(block))
    good, bad = survivors(lambda i: apply(block if len(i) == len(block) else block.take(i)), every)
    for row, error in bad.items():
        scope.skips.say(site.components, block.origin, row, error)
    return Block.concat([piece for _, piece in good]) if good else apply(block.slice(0, 0))
