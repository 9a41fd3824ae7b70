"""What a stream of batches is: which rows each takes, and where the stream stands after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipeline.block import Block, Int64s, Origin
from pipeline.sampling.passes import Cursor


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
    """

    block: Block
    slots: Int64s
    rows: Int64s
    total: int
    after: Cursor
    own: bool = False


class Share(Protocol):
    """Which rows of a global batch are this process's."""

    def rows(self, batch: int) -> Int64s: ...


Jump = Callable[[Cursor], Cursor]  # past the steps that are skipped


class Stream(Protocol):
    """A dataset's batches, each a function of the cursor before it."""

    def start(self) -> Cursor: ...

    def take(self, cursor: Cursor) -> Take | None:
        """The batch at a cursor; None where its pass holds none."""
        ...

    def expect(self, cursor: Cursor, jump: Jump) -> None:
        """Have the batches from a cursor on evaluated ahead, as far as pass and budget go."""
        ...

    def forget(self) -> None:
        """What was expected does not come."""
        ...

    def turn(self, cursor: Cursor) -> Cursor:
        """The start of the next pass."""
        ...

    def locate(self, step: int) -> Cursor: ...

    def anchor(self, cursor: Cursor) -> None:
        """Count steps from here on, instead of from step 0."""
        ...

    def origin(self, cursor: Cursor) -> Origin:
        """Provenance of this process's rows of the batch at a cursor."""
        ...
