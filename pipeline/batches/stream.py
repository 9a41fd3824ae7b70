"""What a stream of batches is: which rows each batch takes, and where the stream then stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from pipeline.block import Block, Int64s, Origin
from pipeline.checkpoint.position import Position
from pipeline.checkpoint.state import SavedState
from pipeline.sampling.cursor import Cursor
from pipeline.sampling.cuts import Ranges
from pipeline.sampling.sizes import Rule


class Take(NamedTuple):
    """This process's part of one batch.

    Attributes:
        whole: the block that holds this process's real rows, and maybe those of other batches.
        start, stop: which rows of it are this batch's.
        slots: int64[stop - start], where each of them goes among this process's rows.
        rows: int64[m], this process's rows of the global batch, padding included.
        total: rows of the global batch, padding included.
        after: the cursor that holds once the batch has been handed out.
        own: whether nothing else uses the block's memory.
        kept: whether later batches are cut from the same block.
    """

    whole: Block
    start: int
    stop: int
    slots: Int64s
    rows: Int64s
    total: int
    after: Cursor
    own: bool = False
    kept: bool = False

    @property
    def block(self) -> Block:
        """This process's real rows, without padding."""
        whole = self.whole
        everything = self.start == 0 and self.stop == len(whole)
        return whole if everything else whole.slice(self.start, self.stop)


class Share(Protocol):
    """Which rows of a global batch are this process's."""

    def rows(self, batch: int) -> Int64s: ...


Settle = Callable[[Cursor], Cursor]  # moves a cursor past skipped steps


class Stream(Protocol):
    """The batches of a dataset from a position on; each is a function of the cursor before it.

    A stream has the anchor, skips and exclusions of one position. For another position, `at`
    returns another stream over the same workers.
    """

    @property
    def rule(self) -> Rule:
        """How the rows are cut into batches."""
        ...

    @property
    def per_pass(self) -> int | None:
        """Batches of a pass; None where that is not known."""
        ...

    @property
    def alone(self) -> bool:
        """Whether this process alone knows the whole state, without the other hosts'."""
        ...

    @property
    def jumps(self) -> Ranges:
        """The skipped steps that are jumped over.

        Steps that were skipped under other batch sizes or another rule are not among them: their
        rows are cut out of the stream.
        """
        ...

    def start(self) -> Cursor: ...

    def at(self, position: Position) -> Stream:
        """The stream of the same dataset from another position on."""
        ...

    def restored(self, saved: SavedState) -> Position:
        """The position in this stream that a state describes.

        Raises:
            StateError: the state lacks lanes of this process, or cannot tell what it skips.
        """
        ...

    def take(self, cursor: Cursor) -> Take | None:
        """The batch at a cursor; None if its pass has no further one."""
        ...

    def turn(self, cursor: Cursor) -> Cursor:
        """The start of the next pass."""
        ...

    def locate(self, step: int) -> Cursor:
        """The cursor at a step.

        Raises:
            PositionError: the step lies before the anchor, or no batch comes that late.
        """
        ...

    def advance(self, cursor: Cursor, step: int) -> Cursor:
        """The cursor at a later step, or at the start of the next pass if that comes first."""
        ...

    def jump(self, cursor: Cursor, step: int) -> Cursor:
        """The cursor at a step, the same or a later one, however many passes lie between."""
        ...

    def is_cut(self, cursor: Cursor) -> bool:
        """Whether skipped rows are cut out of the cursor's pass, maybe all of them."""
        ...

    def prefetch(self, cursor: Cursor, settle: Settle) -> None:
        """Begin to evaluate the batches from a cursor on, as far as its pass and the budget go."""
        ...

    def cancel(self) -> None:
        """Cancel all work that was begun ahead."""
        ...

    def origin(self, cursor: Cursor) -> Origin:
        """Provenance of this process's rows of the batch at a cursor."""
        ...

    @property
    def rows_of(self) -> Callable[[int], Ranges] | None:
        """A function from a step to its stream rows of all hosts; None where only reading tells.

        The rows are those before exclusion: excluded rows, not their substitutes.
        """
        ...

    def origins(self, start: int, stop: int) -> Iterator[tuple[Int64s, Origin]]:
        """Yield (each row's step: int64[n], the rows' provenance) for steps [start, stop).

        These are rows of all hosts where `rows_of` is known, else those of this process.
        """
        ...
