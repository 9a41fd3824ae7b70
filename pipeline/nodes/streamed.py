"""What is asked of streamed rows, and what reads their lanes, a pass at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.block import Block
from pipeline.errors import StreamEndError
from pipeline.nodes.node import Frontiers, Node, Span
from pipeline.nodes.scope import Path, Scope
from pipeline.sampling.cursor import Lane, Place
from pipeline.sampling.order import NoInverseError
from pipeline.sampling.repeat import Repeat
from pipeline.types import Transform

if TYPE_CHECKING:
    from pipeline.nodes.blocks import Blocks


class Pending(Protocol):
    """Work under way."""

    def result(self) -> Block:
        """Its rows, waiting for them; the same error again if asked again."""
        ...

    def cancel(self) -> None:
        """Its rows are not wanted any more."""
        ...


class Ask(Protocol):
    """Begins block `number` of a lane; of a mix, of the component that names lead to."""

    def __call__(self, names: Path, lane: int, number: int, urgent: bool, /) -> Pending: ...


class Ahead(Protocol):
    """One lane's blocks that can be begun before they are needed."""

    def begun(self, lane: int, number: int) -> int:
        """How many blocks from `number` on are under way."""
        ...

    def begin(self, lane: int, number: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a lane stands in one run of blocks.

    Attributes:
        blocks: who begins them.
        lane, number: the block that the next row is looked for in.
        end: the run ends before this block; None if it never ends.
        share: of the lane's rows that come from here, about.
    """

    blocks: Ahead
    lane: int
    number: int
    end: int | None
    share: float = 1.0


class Reader(Protocol):
    """Reads the lanes of streamed rows. A place is plain data: any reader goes on from it."""

    @property
    def endless(self) -> bool:
        """Whether a pass never ends."""
        ...

    def start(self) -> Place:
        """Where each lane begins."""
        ...

    def check(self, place: Place) -> None:
        """Raises TypeError or ValueError if a place is none of this reader's."""
        ...

    def turn(self, place: Place, epoch: int) -> Place:
        """The start of pass `epoch`, for a lane that the pass before left at `place`."""
        ...

    @property
    def arithmetic(self) -> bool:
        """Whether the start of a pass does not depend on where the one before it ended."""
        ...

    def pull(self, lane: int, place: Place, epoch: int, want: int) -> tuple[list[Block], Place]:
        """Up to `want` rows of pass `epoch`, fewer only at its end, and where the lane then stands.

        Raises:
            StreamEndError: no row comes any more of a pass that never ends.
        """
        ...

    def has(self, lane: int, place: Place, epoch: int, want: int) -> bool:
        """Whether the pass holds so many more rows."""
        ...

    @property
    def patience(self) -> int:
        """Passes without a row, at least one, after which none will come."""
        ...

    @property
    def cycle(self) -> int:
        """Rows of a lane beneath the filters and packs after which only chance brings new ones."""
        ...

    def spots(self, lane: int, place: Place, epoch: int) -> Iterator[Spot]:
        """The runs of blocks that the lane's next rows come from."""
        ...

    def keep(self, lane: int, place: Place) -> None:
        """Drop what the rows from a place on do not need."""
        ...

    def cancel(self) -> None:
        """Cancel all pending work."""
        ...


class PieceReader:
    """Reads lanes piece by piece: a place is (where a piece begins, its rows given so far).

    A subclass says what a piece is: a block of positions, or what became of some rows of a mix.
    """

    @abstractmethod
    def piece(self, lane: int, at: Any, epoch: int) -> Block | None:
        """The rows of the piece that begins at `at`; None where the pass ends before it."""
        ...

    @abstractmethod
    def after(self, lane: int, at: Any) -> Any:
        """Where the next piece begins."""
        ...

    @property
    @abstractmethod
    def most_empty(self) -> int:
        """Pieces of a lane without a row after which none will come."""
        ...

    @abstractmethod
    def barren(self, lane: int, pieces: int, at: Any) -> StreamEndError:
        """The error for a lane that gave no row in so many pieces before the one at `at`."""
        ...

    def pull(self, lane: int, place: Place, epoch: int, want: int) -> tuple[list[Block], Place]:
        at, offset = place
        found, empty = list[Block](), 0
        while want and (block := self.piece(lane, at, epoch)) is not None:
            offset = min(offset, len(block))  # shorter than when saved, if a change was allowed
            rows = block.slice(offset, min(offset + want, len(block)))
            want, offset = want - len(rows), offset + len(rows)
            empty = 0 if len(rows) else empty + 1
            if len(rows):
                found.append(rows)
            if offset == len(block):
                at, offset = self.after(lane, at), 0
            if empty and empty > self.most_empty:
                raise self.barren(lane, empty, at)
        return found, (at, offset)

    def has(self, lane: int, place: Place, epoch: int, want: int) -> bool:
        at, offset = place
        want += offset
        while want > 0 and (block := self.piece(lane, at, epoch)) is not None:
            want, at = want - len(block), self.after(lane, at)
        return want <= 0


def check_numbers(*numbers: object, count: int) -> None:
    """Raises ValueError unless there are so many, all of them whole."""
    if len(numbers) != count or not all(isinstance(n, int) for n in numbers):
        raise ValueError(f"{numbers} should be {count} whole numbers")


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

    def holding(
        self, spans: list[Span], here: Here, places: Sequence[Lane]
    ) -> list[tuple[int, int]]:
        """The (lane, block) pairs that hold records, of the blocks begun when lanes stand so.

        Raises:
            NoInverseError: only reading tells.
        """
        raise NoInverseError(f"only reading a {self.kind or 'mix'} tells which rows it gave")

    def touched_lanes(self, places: Sequence[Lane], lanes: int, more: int, head: str) -> Frontiers:
        """How far the mixes beneath were drawn, by where lanes stand.

        Args:
            places: (lane, place) each.
            lanes: L.
            more: so many rows of each lane may have been drawn beyond its place.
            head: what stands before names in this part's fingerprint.
        """
        raise NotImplementedError
