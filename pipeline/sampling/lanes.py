"""Dividing a streamed dataset: epochs are cut into near-equal blocks, which are dealt to lanes."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.types import ENDLESS


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """The blocks of the indexed dataset beneath a streamed one. No block extends over two epochs.

    Attributes:
        rows: rows of one pass over the indexed dataset; ENDLESS if it never ends.
        period: rows of one epoch of it; ENDLESS if it has no epochs, and then blocks have equal
            sizes.
        block: approximate number of rows in a block.
        lanes: number of lanes, L. Lane l has blocks l, l + L, …

    >>> grid = BlockGrid(rows=10, period=10, block=4, lanes=2)
    >>> [grid.bounds(lane, number) for number in range(2) for lane in range(2)]
    [(0, 2), (2, 5), (5, 7), (7, 10)]
    """

    rows: int
    period: int
    block: int
    lanes: int

    @property
    def per_epoch(self) -> int:
        """Blocks of one lane in one epoch."""
        return -(-self.period // (self.lanes * self.block))

    @property
    def per_pass(self) -> int | None:
        """Blocks of one lane in one pass; None if a pass never ends."""
        if self.rows == ENDLESS:
            return None
        return self.per_epoch * (self.rows // self.period) if self.period else 0

    def block_of(self, row: int) -> tuple[int, int]:
        """(lane, number) of the block that holds a row of the indexed dataset's stream.

        >>> [BlockGrid(rows=10, period=10, block=4, lanes=2).block_of(row) for row in (1, 2, 7, 12)]
        [(0, 0), (1, 0), (1, 1), (1, 2)]
        """
        if self.period == ENDLESS:
            found = row // self.block
        else:
            epoch, inside = divmod(row, self.period)
            count = self.per_epoch * self.lanes
            found = epoch * count + ((inside + 1) * count - 1) // self.period
        number, lane = divmod(found, self.lanes)
        return lane, number

    def bounds(self, lane: int, number: int) -> tuple[int, int]:
        """Rows `[start, stop)` of the indexed dataset's stream in a lane's block `number`.

        >>> BlockGrid(rows=0, period=0, block=4, lanes=1).bounds(0, 0)
        (0, 0)
        """
        if not self.period:
            return 0, 0
        if self.period == ENDLESS:
            first = (number * self.lanes + lane) * self.block
            return first, first + self.block
        count = self.per_epoch * self.lanes
        epoch, block = divmod(number * self.lanes + lane, count)
        start = epoch * self.period
        return (
            start + block * self.period // count,
            start + (block + 1) * self.period // count,
        )
