"""What the blocks of a counted dataset hold, wherever they are evaluated."""

from __future__ import annotations

import numpy as np

from pipeline.block import Block, Origin
from pipeline.chain import Chain, Path
from pipeline.types import At


def read_part(chain: Chain, part: Path, lane: int, number: int) -> Block:
    """Block `number` of a lane of the chain."""
    return chain.read_block(lane, number)


def origin_of_part(chain: Chain, part: Path, lane: int, number: int) -> Origin:
    """Provenance of the records beneath a block, by arithmetic."""
    rows = np.arange(*chain.cut(chain.lanes).bounds(lane, number))
    return chain.origin(At.of_rows(rows, max(1, chain.length)))
