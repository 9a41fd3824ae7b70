"""The questions that nodes of streamed rows answer, and the readers of their lanes."""

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
    """A block that is being evaluated."""

    def result(self) -> Block:
        """Wait for the block and return it, or raise its error; each call does the same."""
        ...

    def cancel(self) -> None:
        """Say that nobody needs the block any more."""
        ...


class Ask(Protocol):
    """Begins block `number` of a lane, in the component that the mixes' `names` lead to.

    A block is `urgent` if its rows are waited for, and not if it is read ahead.
    """

    def __call__(self, names: Path, lane: int, number: int, urgent: bool, /) -> Pending: ...


class Ahead(Protocol):
    """Blocks that can be begun before they are needed."""

    def begun(self, lane: int, number: int) -> int:
        """How many consecutive blocks of a lane, from `number` on, have been begun."""
        ...

    def begin(self, lane: int, number: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a lane stands in one run of blocks.

    Attributes:
        blocks: begins the blocks of the run.
        lane, number: the block that the next row comes from.
        end: the run ends before this block; None if it never ends.
        share: approximate share of the lane's rows that come from this run, up to 1.
    """

    blocks: Ahead
    lane: int
    number: int
    end: int | None
    share: float = 1.0


class Reader(Protocol):
    """Reads the lanes of streamed rows. A place is plain data: any reader can continue from it."""

    @property
    def endless(self) -> bool:
        """Whether a pass never ends."""
        ...

    def start(self) -> Place:
        """Where each lane begins."""
        ...

    def check(self, place: Place) -> None:
        """Raise TypeError or ValueError if `place` is not a place of this reader."""
        ...

    def turn(self, place: Place, epoch: int) -> Place:
        """The start of pass `epoch`, for a lane that the pass before left at `place`."""
        ...

    @property
    def arithmetic(self) -> bool:
        """Whether the start of a pass does not depend on where the one before it ended."""
        ...

    def pull(self, lane: int, place: Place, epoch: int, want: int) -> tuple[list[Block], Place]:
        """Return up to `want` rows of pass `epoch`, fewer only at its end, and the place after.

        Raises:
            StreamEndError: so many blocks or passes were empty that no more rows can be expected.
        """
        ...

    def has(self, lane: int, place: Place, epoch: int, want: int) -> bool:
        """Whether pass `epoch` still holds at least `want` rows."""
        ...

    @property
    def patience(self) -> int:
        """How many passes may be empty in a row before the stream counts as ended; at least 1."""
        ...

    @property
    def cycle(self) -> int:
        """Rows of a lane, beneath filters and packs, in which each of its records comes once."""
        ...

    def spots(self, lane: int, place: Place, epoch: int) -> Iterator[Spot]:
        """Yield the runs of blocks that the lane's next rows come from."""
        ...

    def keep(self, lane: int, place: Place) -> None:
        """Drop every block that rows from `place` on do not need."""
        ...

    def cancel(self) -> None:
        """Cancel all pending work."""
        ...


class PieceReader:
    """Reads lanes piece by piece: a place is (where a piece begins, its rows given so far).

    A subclass says what a piece is: a block, or a unit of rows that a mix has dealt.
    """

    @abstractmethod
    def piece(self, lane: int, at: Any, epoch: int) -> Block | None:
        """The rows of the piece that begins at `at`; None where the pass ends before it."""
        ...

    @abstractmethod
    def after(self, lane: int, at: Any) -> Any:
        """Where the next piece begins."""
        ...

    def ended(self, lane: int, at: Any, epoch: int) -> Any:
        """Where a lane stands once it was found that pass `epoch` ends before the piece at `at`."""
        return at

    @property
    @abstractmethod
    def most_empty(self) -> int:
        """How many pieces of a lane may be empty in a row before the stream counts as ended."""
        ...

    @abstractmethod
    def barren(self, lane: int, pieces: int, at: Any) -> StreamEndError:
        """The error for a lane whose last `pieces` pieces, up to the one at `at`, were empty."""
        ...

    def pull(self, lane: int, place: Place, epoch: int, want: int) -> tuple[list[Block], Place]:
        at, offset = place
        found, empty = list[Block](), 0
        while want:
            block = self.piece(lane, at, epoch)
            if block is None:
                return found, (self.ended(lane, at, epoch), 0)
            offset = min(offset, len(block))  # beyond it after an allowed change
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
    """Raise ValueError unless there are `count` numbers, all of them whole."""
    if len(numbers) != count or not all(isinstance(n, int) for n in numbers):
        raise ValueError(f"{numbers} should be {count} whole numbers")


def unlifted(block: Block) -> Block:
    """The block itself: no mix stands above."""
    return block


@dataclass(frozen=True, eq=False)
class Here:
    """Where a node of streamed rows stands in a dataset.

    Attributes:
        scope: the scope of its part.
        lanes: the number of lanes of the whole dataset.
        first: the number of its first component among those of the dataset.
        lift: applies the row-wise stages of the mixes above to a block, up to the first filter
            or pack, and renumbers its components.
    """

    scope: Scope
    lanes: int
    first: int = 0
    lift: Callable[[Block], Block] = unlifted


class Streamed(Node):
    """A node whose number of rows is known only after they were read."""

    streamed = True

    @property
    def late(self) -> bool:
        """Whether some stages work on rows that a mix has dealt."""
        return False

    def transformed(self, transform: Transform) -> Streamed:
        """This node with one more transform on it."""
        raise NotImplementedError

    def repeated(self, repeat: Repeat) -> Streamed:
        """This node, repeated: the repeat goes beneath its transforms."""
        raise NotImplementedError

    def reader(self, here: Here, ask: Ask) -> Reader:
        """A reader of the lanes, which calls `ask` to begin a block."""
        raise NotImplementedError

    def located(self, names: Path, here: Here) -> tuple[Blocks, Here]:
        """The node of blocks that the mixes' `names` lead to, and where it stands."""
        raise NotImplementedError

    def holding(
        self, spans: list[Span], here: Here, places: Sequence[Lane]
    ) -> list[tuple[int, int]]:
        """The (lane, number) pairs of the blocks that hold some records.

        Args:
            spans: the records.
            here: where this node stands.
            places: where the lanes stand; later blocks are not looked at.

        Raises:
            NoInverseError: only reading the rows would tell.
        """
        raise NoInverseError(f"only reading a {self.kind or 'mix'} tells which rows it gave")

    def touched_lanes(self, places: Sequence[Lane], lanes: int, more: int, head: str) -> Frontiers:
        """How many rows of each mix beneath have been drawn when the lanes stand at `places`.

        Args:
            places: (lane, place) of each lane.
            lanes: the number of lanes.
            more: rows of each lane that may have been drawn beyond its place.
            head: prefix of this part's keys in the fingerprint.
        """
        raise NotImplementedError
