"""How streamed rows are laid out: an epoch is cut into near-equal blocks, dealt to the lanes."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.types import ENDLESS


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """The blocks of an indexed dataset beneath streamed rows. No block crosses an epoch.

    Attributes:
        rows: rows of one pass over the dataset beneath; ENDLESS if it never ends.
        period: rows of one epoch of it; ENDLESS if it has none: then blocks are of one size.
        block: about how many rows a block has.
        lanes: L; lane l owns blocks l, l + L, …

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
        """The (lane, number) of the block that covers a stream row beneath.

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
        """Stream rows `[start, stop)` beneath that the lane's block `number` covers."""
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
