"""What a stream of batches is: which rows each takes, and where the stream stands after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from pipeline.block import Block, Int64s, Origin
from pipeline.checkpoint.state import Rule, Saved
from pipeline.provenance.exclusions import Exclusions
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

    def advance(self, cursor: Cursor, step: int) -> Cursor:
        """The cursor at a step, or at the start of the next pass if that comes first."""
        ...

    def exclude(self, excluded: Exclusions, since: int) -> None:
        """Leave records out; what is new among them counts from step `since` on.

        An indexed dataset gives other rows of the epoch in their place, a counted one its next.
        """
        ...

    def restore(self, saved: Saved) -> tuple[Cursor, bool]:
        """Where a state stands in this stream, and whether it comes of other batches than these.

        Raises:
            StateError: the state lacks lanes of this process.
        """
        ...

    @property
    def rule(self) -> Rule | None:
        """What states must tell of how batches were cut; None if their rows tell."""
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
    def rows_of(self) -> Callable[[int], tuple[int, int]] | None:
        """Stream rows `[start, stop)` of a step, over all hosts; None where no arithmetic tells.

        Of excluded ones others stand in their place.
        """
        ...

    def origins(self, start: int, stop: int) -> Iterator[tuple[Int64s, Origin]]:
        """The steps of rows and their provenance, for steps `[start, stop)`, some at a time.

        Of an indexed dataset, rows of all hosts; else those of this process.
        """
        ...

    def origin(self, cursor: Cursor) -> Origin:
        """Provenance of this process's rows of the batch at a cursor."""
        ...
