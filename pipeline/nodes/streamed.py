"""What is asked of streamed rows: how their lanes are read, block after block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.block import Block
from pipeline.nodes.node import Frontiers, Node
from pipeline.nodes.reader import Ask, Reader
from pipeline.nodes.scope import Path, Scope
from pipeline.sampling.cursor import Lane
from pipeline.sampling.repeat import Repeat
from pipeline.types import Transform

if TYPE_CHECKING:
    from pipeline.nodes.blocks import Blocks


def _same(block: Block) -> Block:
    return block


@dataclass(frozen=True, eq=False)
class Here:
    """Where a node of streamed rows stands in a dataset.

    Attributes:
        scope: of its part.
        lanes: L, of the whole dataset.
        first: the number of its first component among those of the dataset.
        lift: carries its rows through the mixes above, up to the first that filters or packs.
    """

    scope: Scope
    lanes: int
    first: int = 0
    lift: Callable[[Block], Block] = _same


class Streamed(Node):
    """Rows that come as they come: how many there are is known once they were read."""

    streamed = True

    @property
    def late(self) -> bool:
        """Whether some stages see rows only once a mix has dealt them."""
        return False

    def transformed(self, transform: Transform) -> Streamed:
        """The rows with one more transform on them."""
        raise NotImplementedError

    def repeated(self, repeat: Repeat) -> Streamed:
        """The rows of what lies beneath, epoch after epoch."""
        raise NotImplementedError

    def reader(self, here: Here, ask: Ask) -> Reader:
        """Reads the lanes; `ask` begins blocks."""
        raise NotImplementedError

    def located(self, names: Path, here: Here) -> tuple[Blocks, Here]:
        """The blocks that names of mixes lead to."""
        raise NotImplementedError

    def touched_lanes(self, places: Sequence[Lane], lanes: int, more: int, head: str) -> Frontiers:
        """How far the mixes beneath were drawn, by where lanes stand.

        Args:
            places: (lane, place) each.
            lanes: L.
            more: so many rows of each lane may have been drawn beyond its place.
            head: what stands before names in this part's fingerprint.
        """
        raise NotImplementedError
