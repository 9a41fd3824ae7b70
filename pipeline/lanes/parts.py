"""What the blocks of a counted dataset hold, wherever they are evaluated."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pipeline.block import Block, Origin
from pipeline.chain import Chain, Path
from pipeline.roots import Joined
from pipeline.types import At

Trail = tuple[tuple[Chain, Path], ...]  # the chains from the outermost to a component, with paths


def joined(chain: Chain) -> Joined:
    """The root of a chain of several datasets."""
    assert isinstance(chain.root, Joined)
    return chain.root


def trail(chain: Chain, part: Path) -> Trail:
    """The chains from a dataset's own to the component that `part` leads to."""
    steps: list[tuple[Chain, Path]] = [(chain, ())]
    for name in part:
        chain = joined(chain).chains[name]
        steps.append((chain, (*steps[-1][1], name)))
    return tuple(steps)


def read_part(chain: Chain, part: Path, lane: int, number: int) -> Block:
    """Block `number` of a lane of the chain, or of the component that `part` leads to.

    Of a component, with the row-wise stages of the mixes above: they may as well come before rows
    are dealt, and so are evaluated by whoever evaluates the block.
    """
    steps = trail(chain, part)
    leaf, path = steps[-1]
    block = leaf.read_block(lane, number, path, chain.lanes)
    leaf.ahead(*leaf.cut(chain.lanes).bounds(lane, number))
    return lifted(steps, block)


def lifted(steps: Trail, block: Block) -> Block:
    """A component's rows as they stand in the mixes above, up to one whose stages count rows."""
    for (_, path), (above, up) in pairwise(reversed(steps)):
        block = joined(above).above(path[-1], block)
        block = above.apply(block, slice(above.split, above.unit), up)
        if above.unit < len(above.stages):
            break
    return block


def origin_of_part(chain: Chain, part: Path, lane: int, number: int) -> Origin:
    """Provenance of the records beneath a block, by arithmetic."""
    steps = trail(chain, part)
    leaf, path = steps[-1]
    rows = np.arange(*leaf.cut(chain.lanes).bounds(lane, number))
    origin = leaf.origin(At.of_rows(rows, max(1, leaf.length)), path)
    for (_, path), (above, _) in pairwise(reversed(steps)):
        origin = joined(above).above(path[-1], origin)
    return origin
