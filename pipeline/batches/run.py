"""The batches from a position on, some of them made ahead of the loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from pipeline.batches.skipping import Skipping
from pipeline.batches.stream import Settle, Stream, Take
from pipeline.checkpoint.position import Position
from pipeline.sampling.cursor import Cursor


class Made(NamedTuple):
    """A batch that is ready, this process's rows and bytes of it, and the cursor after it.

    `told` is what the observer returned for the rows before they became the batch.
    """

    batch: Any
    rows: int
    nbytes: int
    after: Cursor
    told: Any = None


class Observer(Protocol):
    """Hears of each batch, as a run's journal does."""

    def made(self, take: Take) -> Any:
        """Called before rows become a batch; what it returns is kept as `Made.told`."""
        ...

    def handed_out(self, start: Position, made: Made, waited: float) -> None:
        """Called as a batch that began at `start` is handed out, after `waited` seconds."""
        ...

    def moved(self, *, elsewhere: bool) -> None:
        """Called when the loader stands elsewhere, or only leaves out other steps or records."""
        ...


class Run:
    """Batches of a stream, one after another.

    Args:
        stream: the stream at the position.
        position: where the run begins.
        make: makes the batch of a stream at a cursor; gives None if the pass has no further one.
        prefetch: how many batches are made before they are asked for.

    Attributes:
        position: where the run stands now.
    """

    def __init__(
        self,
        stream: Stream,
        position: Position,
        make: Callable[[Stream, Cursor], Made | None],
        prefetch: int,
    ) -> None:
        self.stream, self.position = stream, position
        self._make, self._prefetch = make, prefetch
        self.skipping = Skipping(stream)
        self._settled: Settle = self.skipping.settled if stream.jumps else _where_it_is
        self.ready: deque[tuple[Made, Position]] = deque()
        self._begun: Cursor | None = None  # the cursor from which workers were told to go on

    def settle(self) -> Cursor:
        """Move past skipped steps of the pass and return the cursor there."""
        cursor = self._settled(self.position.cursor)
        if cursor is not self.position.cursor:
            self._go(cursor)
        return cursor

    def at_skipped_pass(self) -> bool:
        """Whether it stands at the start of a pass whose steps are all skipped."""
        return bool(self.stream.jumps) and self.skipping.end(self.settle().step) is not None

    def within(self, epoch: int) -> bool:
        """Whether it stands in a pass; if all steps of that are skipped, it leaves the pass."""
        if self.settle().epoch != epoch:
            return False
        if self.at_skipped_pass():
            self._go(self.skipping.next_pass(self.position.cursor))
            return False
        return True

    def fill(self, *, across: bool) -> bool:
        """Make the next batch, and those ahead of it.

        If the pass has no further batch, the run goes to the start of the next one.

        Args:
            across: go on into later passes while all rows of a pass are skipped.

        Returns:
            Whether a batch is ready.
        """
        while True:
            if across and self.at_skipped_pass():
                self._go(self.skipping.past(self.position.cursor))
                self.settle()
            self._fill(1 + self._prefetch)
            if self.ready:
                return True
            cursor, stream = self.position.cursor, self.stream
            following = stream.turn(cursor)
            if not (across and stream.is_cut(cursor)):
                self._go(following)
                return False
            self._go(stream.jump(following, following.step))

    def _go(self, cursor: Cursor) -> None:
        self.position = self.position.at(cursor)

    def _fill(self, want: int) -> None:
        # batches ahead, within the pass; an error among them waits until its batch is asked for
        cursor = self._settled(self.ready[-1][1].cursor) if self.ready else self.settle()
        while len(self.ready) < want:
            if self.ready and cursor.epoch != self.position.cursor.epoch:
                return
            try:
                if self._begun is not cursor:
                    self._begin(cursor)
                made = self._make(self.stream, cursor)
                if made is None:
                    return
                self.ready.append((made, self.position.at(made.after)))
                cursor = self._settled(made.after)
                # workers go on while the loop uses this batch; not into a pass that may never be
                # asked for
                if cursor.epoch == self.position.cursor.epoch:
                    self._begin(cursor)
            except Exception:
                if self.ready:
                    return
                raise

    def _begin(self, cursor: Cursor) -> None:
        # let workers begin with the batches from a cursor on
        self.stream.prefetch(cursor, self._settled)
        self._begun = cursor

    def prefetch(self) -> None:
        """Let workers begin with the batches from here on."""
        cursor = self._settled(self.position.cursor)
        if self.skipping.end(cursor.step) is None:
            self._begin(cursor)

    def cancel(self) -> None:
        """Drop the batches made ahead, and cancel those begun."""
        self.ready.clear()
        self._begun = None
        self.stream.cancel()


def _where_it_is(cursor: Cursor) -> Cursor:
    return cursor
