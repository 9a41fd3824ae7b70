"""What is read where some rows fail: all rows, or those that can be read, as the dataset says."""

from __future__ import annotations

import numpy as np

from pipeline.block import Block, Int64s, Origin
from pipeline.meter import METER
from pipeline.nodes.faults import patiently, survivors
from pipeline.nodes.node import Node
from pipeline.nodes.scope import Scope
from pipeline.types import At, Transform

Pieces = list[tuple[Int64s, Block]]
"""Some of the rows asked for: which, and what reading them gave."""


def good_rows(node: Node, at: At, scope: Scope) -> tuple[Pieces, dict[int, Exception]]:
    """The rows of a node that can be read, and the errors of the others, which are logged."""
    good, bad = survivors(lambda i: node.read(at.take(i), scope), np.arange(len(at.index)))
    for row, error in bad.items():
        origin = node.origin(at.take([row]), scope)
        scope.skips.say(scope.components, origin, 0, error)
    return good, bad


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
