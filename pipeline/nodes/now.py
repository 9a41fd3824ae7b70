"""Reading lanes without workers: a block is evaluated when its rows are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from pipeline.block import Block
from pipeline.nodes.part import Part
from pipeline.nodes.scope import Path
from pipeline.nodes.streamed import Pending

MOST = 64  # rows pulled at a time, at most


def lane_blocks(part: Part, lane: int) -> Iterator[Block]:
    """Yield the rows of one lane's first pass, a few at a time; an endless part's never ends."""

    def ask(names: Path, lane: int, number: int, urgent: bool) -> Pending:
        return _Now(part, names, lane, number)

    reader = part.reader(ask)
    place, want, got = reader.start(), 1, 1
    while got:
        reader.keep(lane, place)
        blocks, place = reader.pull(lane, place, 0, want)
        yield from blocks
        got = sum(map(len, blocks))
        want = min(MOST, 2 * want)  # starts small: a caller of one row does not wait for many


class _Now:
    # a block, evaluated when its rows are asked for
    def __init__(self, part: Part, names: Path, lane: int, number: int) -> None:
        self._part, self._of = part, (names, lane, number)

    @cached_property
    def _block(self) -> Block:
        return self._part.read_block(*self._of)

    def result(self) -> Block:
        return self._block

    def cancel(self) -> None:
        """Nothing to do: no work is under way."""
