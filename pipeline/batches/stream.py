"""What a stream of batches is: which rows each batch takes, and where the stream then stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from pipeline.block import Block, Int64s, Origin
from pipeline.checkpoint.position import Position
from pipeline.checkpoint.state import SavedState
from pipeline.sampling.cursor import Cursor
from pipeline.sampling.cuts import Ranges
from pipeline.sampling.sizes import Rule


@dataclass(frozen=True, slots=True)
class Take:
    """This process's part of one batch.

    Attributes:
        block: the rows it really has.
        slots: int64[len(block)], where each of them goes among this process's rows.
        rows: int64[m], this process's rows of the global batch, padding included.
        total: rows of the global batch, padding included.
        after: the cursor that holds once the batch has been handed out.
        own: whether the block's memory is nobody else's.
        kept: whether the block is part of one that later batches read too.
    """

    block: Block
    slots: Int64s
    rows: Int64s
    total: int
    after: Cursor
    own: bool = False
    kept: bool = False


class Share(Protocol):
    """Which rows of a global batch are this process's."""

    def rows(self, batch: int) -> Int64s: ...


Settle = Callable[[Cursor], Cursor]  # past the steps that are skipped


class Stream(Protocol):
    """The batches of a dataset from a position on; each is a function of the cursor before it.

    A stream belongs to one position's anchor, skips and exclusions. For others, `at` gives another
    stream over the same workers.
    """

    @property
    def rule(self) -> Rule:
        """How the rows are cut into batches."""
        ...

    @property
    def per_pass(self) -> int | None:
        """Batches a pass, where that is known."""
        ...

    @property
    def alone(self) -> bool:
        """Whether this process knows the whole state."""
        ...

    @property
    def jumps(self) -> Ranges:
        """Skipped steps, as this stream counts steps.

        Rows of steps that were skipped while other batches counted are cut out of the stream.
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
        """The batch at a cursor; None where its pass holds none."""
        ...

    def turn(self, cursor: Cursor) -> Cursor:
        """The start of the next pass."""
        ...

    def locate(self, step: int) -> Cursor:
        """The cursor at a step.

        Raises:
            PositionError: the step lies before the anchor.
        """
        ...

    def advance(self, cursor: Cursor, step: int) -> Cursor:
        """The cursor at a later step, or at the start of the next pass if that comes first."""
        ...

    def jump(self, cursor: Cursor, step: int) -> Cursor:
        """The cursor at a later step, or at the start of a pass on the way to it."""
        ...

    def is_cut(self, cursor: Cursor) -> bool:
        """Whether skipped rows are cut out of the cursor's pass, maybe all of them."""
        ...

    def prefetch(self, cursor: Cursor, settle: Settle) -> None:
        """Have the batches from a cursor on evaluated ahead, as far as pass and budget go."""
        ...

    def cancel(self) -> None:
        """Cancel all work that was begun ahead."""
        ...

    def origin(self, cursor: Cursor) -> Origin:
        """Provenance of this process's rows of the batch at a cursor."""
        ...

    @property
    def rows_of(self) -> Callable[[int], Ranges] | None:
        """Stream rows of a step, over all hosts; None where no arithmetic tells.

        Excluded rows count here, not their substitutes.
        """
        ...

    def origins(self, start: int, stop: int) -> Iterator[tuple[Int64s, Origin]]:
        """The steps of rows and their provenance, for steps [start, stop), some at a time.

        Of an indexed dataset, rows of all hosts; else those of this process.
        """
        ...
