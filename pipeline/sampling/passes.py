"""Which rows make batch k: arithmetic on passes, batch sizes, remainders and cuts."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import BatchError, PositionError
from pipeline.sampling.cursor import Cursor
from pipeline.sampling.cuts import NO_CUTS, Cuts
from pipeline.sampling.sizes import Rule, Sizes
from pipeline.types import ENDLESS


@dataclass(frozen=True, slots=True)
class Passes:
    """Batches of one size over an indexed dataset: pass p is rows `[p n, (p + 1) n)`.

    A pass over an endless dataset consists of `steps` batches.

    Attributes:
        n: rows in a pass; ENDLESS if it never ends.
        batch_size: rows in a full batch.
        drop: leave out a short last batch.
        steps: end a pass after so many batches; None for all.
        cuts: rows that are skipped.

    >>> passes = Passes(n=10, batch_size=4)
    >>> [passes.spans(passes.locate(k, Cursor())) for k in range(4)]
    [[(0, 4)], [(4, 8)], [(8, 10)], [(10, 14)]]
    """

    n: int
    batch_size: int
    drop: bool = False
    steps: int | None = None
    cuts: Cuts = NO_CUTS

    def check(self) -> None:
        """Check that a pass has a batch, and at least `steps`.

        Raises:
            BatchError: it has fewer.
        """
        if self.n == ENDLESS:
            return
        natural = self._batches(self.n)
        if self.n and not natural:
            raise BatchError(
                f'remainder="drop" leaves nothing: batch_size={self.batch_size} is more than the '
                f"{self.n} rows of a pass. Use a smaller batch, repeat(), or another remainder."
            )
        if self.steps is not None and self.steps > natural:
            raise BatchError(
                f"steps={self.steps}, but a pass has {natural} batches of {self.batch_size} "
                f"({self.n} rows). Lower steps, or repeat() the dataset."
            )

    @property
    def per_pass(self) -> int | None:
        """Batches in a pass without cuts; None if a pass never ends."""
        if self.n == ENDLESS:
            return self.steps
        natural = self._batches(self.n)
        return natural if self.steps is None else min(self.steps, natural)

    def spans(self, cursor: Cursor) -> list[tuple[int, int]]:
        """Stream rows of the batch at a cursor, as half-open ranges."""
        start, count = cursor.rows, self.batch_size
        if self.n != ENDLESS:
            count = min(count, self._outside(start, (cursor.epoch + 1) * self.n))
        if self.cuts is NO_CUTS:
            return [(start, start + count)] if count > 0 else []
        return self.cuts.spans(start, count)

    def left(self, cursor: Cursor) -> int | None:
        """Batches from a cursor to the end of its pass; None if the pass never ends."""
        left = None
        if self.n != ENDLESS:
            left = max(0, self._batches(self._outside(cursor.rows, self._end(cursor))))
        if self.steps is not None:
            most = max(0, self.steps - cursor.batch)
            left = most if left is None else min(left, most)
        return left

    def within(self, cursor: Cursor, ahead: int) -> Cursor:
        """The cursor `ahead` full batches later in the same pass."""
        count = ahead * self.batch_size
        bare = self.cuts is NO_CUTS
        rows = cursor.rows + count if bare else self.cuts.after(cursor.rows, count)
        if self.n != ENDLESS:
            rows = min(rows, self._end(cursor))
        return Cursor(rows, cursor.step + ahead, cursor.epoch, cursor.batch + ahead)

    def turn(self, cursor: Cursor) -> Cursor:
        """The start of the next pass; the step stays the same."""
        rows = cursor.rows if self.n == ENDLESS else self._end(cursor)
        return cursor._replace(rows=rows, epoch=cursor.epoch + 1, batch=0)

    def locate(self, step: int, cursor: Cursor) -> Cursor:
        """The cursor at a step, counted from another cursor. Looks at each cut at most once.

        Raises:
            PositionError: no later pass has a batch.
        """
        while True:
            ahead, left = step - cursor.step, self.left(cursor)
            if left is None or ahead < left:
                return self.within(cursor, ahead)
            if not self.per_pass:
                raise PositionError(f"there is no step {step}: a pass holds no batch")
            cursor = self._over(self.turn(self.within(cursor, left)), step)

    def _over(self, cursor: Cursor, step: int) -> Cursor:
        # skip all passes that have no batch, or all before `step` that no cut touches
        per_pass = self.per_pass or 1
        turns, steps = (step - cursor.step) // per_pass, per_pass
        if self.n == ENDLESS:
            rows = self.cuts.after(cursor.rows, turns * per_pass * self.batch_size)
            return Cursor(rows, cursor.step + turns * per_pass, cursor.epoch + turns)
        cut = self.cuts.next_from(cursor.rows)
        if cut is not None and cut[0] <= cursor.rows:
            turns, steps = (cut[1] - cursor.rows) // self.n, 0
        elif cut is not None:
            turns = min(turns, (cut[0] - cursor.rows) // self.n)
        epoch = cursor.epoch + turns
        return Cursor(epoch * self.n, cursor.step + turns * steps, epoch)

    def _outside(self, start: int, stop: int) -> int:
        return stop - start if self.cuts is NO_CUTS else self.cuts.outside(start, stop)

    def _end(self, cursor: Cursor) -> int:
        return (cursor.epoch + 1) * self.n

    def _batches(self, rows: int) -> int:
        return rows // self.batch_size if self.drop else -(-rows // self.batch_size)


@dataclass(frozen=True, slots=True)
class SizedPasses:
    """Passes over an indexed dataset with changing batch sizes; `Passes` are those of one size.

    A pass goes on while its remaining rows fill a batch of the next size. It ends when they fill
    neither the next nor the current size.

    Attributes:
        parts: (from_step, passes of one size), ascending from step 0.

    >>> passes = SizedPasses.of(((0, 2), (2, 3)), 10)
    >>> [passes.spans(passes.locate(k)) for k in range(5)]
    [[(0, 2)], [(2, 4)], [(4, 7)], [(7, 10)], [(10, 13)]]
    """

    parts: tuple[tuple[int, Passes], ...]

    @staticmethod
    def of(
        sizes: Sizes, n: int, drop: bool = False, steps: int | None = None, cuts: Cuts = NO_CUTS
    ) -> SizedPasses:
        """Passes of n rows (ENDLESS if they never end)."""
        parts = ((since, Passes(n, size, drop, steps, cuts)) for since, size in sizes)
        return SizedPasses(tuple(parts))

    def check(self) -> None:
        """Check that a pass has a batch of each size, and at least `steps`.

        Raises:
            BatchError: it has fewer.
        """
        for _, passes in self.parts:
            passes.check()

    @property
    def per_pass(self) -> int | None:
        """Batches in a pass; None if a pass never ends, or passes differ."""
        first = self.parts[0][1]
        return first.per_pass if len(self.parts) == 1 or first.n == 0 else first.steps

    def size(self, step: int) -> int:
        """Rows of a full batch at a step."""
        return self._at(step).batch_size

    def spans(self, cursor: Cursor) -> list[tuple[int, int]]:
        """Stream rows of the batch at a cursor, as half-open ranges."""
        return self._at(cursor.step).spans(cursor)

    def after(self, cursor: Cursor) -> Cursor:
        """The cursor after the batch at `cursor`."""
        passes = self._at(cursor.step)
        left, after = passes.left(cursor), passes.within(cursor, 1)
        if left is not None and left <= 1:
            return passes.turn(after)
        if len(self.parts) > 1 and (following := self._at(after.step)) is not passes:
            return following.turn(after) if following.left(after) == 0 else after
        return after

    def full(self, cursor: Cursor, most: int) -> list[Cursor]:
        """The cursors after the next batches: full ones of one size, not the last of their pass.

        There are at most `most`: none beyond a row that is cut out, or a step where sizes change.
        """
        passes, end = self._from(cursor.step)[0]
        left, size = passes.left(cursor), passes.batch_size
        rows, step, epoch, batch = cursor.rows, cursor.step, cursor.epoch, cursor.batch
        cut = passes.cuts.next_from(rows)
        most = most if left is None else min(most, left - 1)
        most = most if end is None else min(most, end - 1 - step)
        most = most if cut is None else min(most, (cut[0] - rows) // size)
        many = range(1, 1 + most)
        return [Cursor(rows + i * size, step + i, epoch, batch + i) for i in many]

    def turn(self, cursor: Cursor) -> Cursor:
        """The start of the next pass; the step stays the same."""
        return self._at(cursor.step).turn(cursor)

    def is_cut(self, cursor: Cursor) -> bool:
        """Whether rows of the cursor's pass are cut."""
        passes = self.parts[0][1]
        first = 0 if passes.n == ENDLESS else cursor.epoch * passes.n
        cut = passes.cuts.next_from(first)
        return cut is not None and (passes.n == ENDLESS or cut[0] < first + passes.n)

    def left(self, cursor: Cursor) -> int | None:
        """Batches from a cursor to the end of its pass; None if the pass never ends."""
        total = 0
        for passes, end in self._from(cursor.step):
            left = passes.left(cursor)
            if end is None or (left is not None and cursor.step + left <= end):
                return None if left is None else total + left
            total += end - cursor.step
            cursor = passes.locate(end, cursor)
        return total

    def reaches(self, cursor: Cursor, anchor: Cursor) -> bool:
        """Whether these batches, counted from an anchor, arrive at a cursor."""
        if cursor.step <= anchor.step:
            return (cursor.step, cursor.rows) == (anchor.step, anchor.rows)
        if self.per_pass == 0:
            return False
        found = self.locate(cursor.step, anchor)
        if cursor.batch == 0 and self.left(cursor) == 0:  # the rest of this pass is cut
            cursor = self.locate(cursor.step, cursor)
        return found == cursor

    def locate(self, step: int, anchor: Cursor | None = None) -> Cursor:
        """The cursor at a step, counted from an anchor, in O(sizes + cuts).

        Raises:
            PositionError: the step is before the anchor, or no later pass has a batch.
        """
        cursor = anchor or Cursor()
        if step < cursor.step:
            raise PositionError(
                f"step {step} lies before step {cursor.step}, where this loader took over a state "
                "of other batches. For earlier steps use a loader of the old batch size and rule."
            )
        for passes, end in self._from(cursor.step):
            if end is None or step < end:
                return passes.locate(step, cursor)
            cursor = passes.locate(end, cursor)
        return cursor

    def _at(self, step: int) -> Passes:
        if len(self.parts) == 1:
            return self.parts[0][1]
        return next(passes for since, passes in reversed(self.parts) if since <= step)

    def _from(self, step: int) -> list[tuple[Passes, int | None]]:
        # the passes of each size from a step on, with the step at which the next size begins
        first = max(i for i, (since, _) in enumerate(self.parts) if since <= step)
        ends = [since for since, _ in self.parts[first + 1 :]]
        passes = [passes for _, passes in self.parts[first:]]
        return list(zip(passes, [*ends, None], strict=True))


def passes_of(rule: Rule, n: int, cuts: Cuts = NO_CUTS) -> SizedPasses:
    """Passes of n rows, by a rule."""
    sizes, remainder, steps = rule
    return SizedPasses.of(sizes, n, remainder == "drop", steps, cuts)
