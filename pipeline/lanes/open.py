"""Which reader reads a counted chain, and how its rows are read without any workers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from pipeline.block import Block
from pipeline.chain import Chain, Path
from pipeline.lanes.blocks import BlockReader
from pipeline.lanes.parts import read_part
from pipeline.lanes.reader import Ask, Pending, Reader

MOST = 64  # rows that are pulled at a time


def open_reader(chain: Chain, ask: Ask, lanes: int) -> Reader:
    """A reader of the chain's lanes.

    Args:
        chain: a counted one.
        ask: begins its blocks.
        lanes: L.
    """
    return BlockReader(chain, ask, lanes)


def lane_blocks(chain: Chain, lane: int) -> Iterator[Block]:
    """The rows of one lane in epoch 0 (in all epochs of an endless chain), a few at a time."""

    def ask(part: Path, lane: int, number: int, urgent: bool) -> Pending:
        return _Now(chain, part, lane, number)

    reader = open_reader(chain, ask, chain.lanes)
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
