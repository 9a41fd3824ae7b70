"""Which reader reads a counted chain, and how its rows are read without any workers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from pipeline.block import Block
from pipeline.chain import Chain, Path
from pipeline.lanes.blocks import BlockReader
from pipeline.lanes.dealt import DealtReader
from pipeline.lanes.parts import Trail, joined, read_part
from pipeline.lanes.reader import Ask, Pending, Reader
from pipeline.lanes.units import UnitReader

MOST = 64  # rows that are pulled at a time


def open_reader(chain: Chain, ask: Ask) -> Reader:
    """A reader of the lanes of a counted chain, whose blocks `ask` begins."""
    return _reader(((chain, ()),), ask)


def _reader(steps: Trail, ask: Ask) -> Reader:
    (chain, path), lanes = steps[-1], steps[0][0].lanes
    if not chain.dealt:
        return BlockReader(chain, ask, lanes, path)
    readers = {
        name: _reader((*steps, (below, (*path, name))), ask)
        for name, below in joined(chain).chains.items()
    }
    dealt = DealtReader(chain, readers, lanes)
    return dealt if chain.unit == len(chain.stages) else UnitReader(steps, dealt, lanes)


def late(chain: Chain) -> bool:
    """Whether some stages see rows only once they are dealt: whoever reads lanes evaluates them."""
    if not chain.dealt:
        return False
    return chain.unit < len(chain.stages) or any(map(late, joined(chain).chains.values()))


def lane_blocks(chain: Chain, lane: int) -> Iterator[Block]:
    """The rows of one lane in epoch 0 (in all epochs of an endless chain), a few at a time."""

    def ask(part: Path, lane: int, number: int, urgent: bool) -> Pending:
        return _Now(chain, part, lane, number)

    reader = open_reader(chain, ask)
    place, want, got = reader.start(), 1, 1
    while got:
        reader.keep(lane, place)
        parts, place = reader.pull(lane, place, 0, want)
        yield from parts
        got = sum(map(len, parts))
        want = min(MOST, 2 * want)  # who wants one row does not wait for many


class _Now:
    # a block, evaluated when it is asked for
    def __init__(self, *of: Any) -> None:
        self._of = of

    @cached_property
    def _block(self) -> Block:
        return read_part(*self._of)

    def result(self) -> Block:
        return self._block

    def cancel(self) -> None:
        """Nothing is under way."""
