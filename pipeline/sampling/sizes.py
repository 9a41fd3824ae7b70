"""Which batch size a step has, and which rows its batch, where the size changes on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.checks import whole
from pipeline.errors import BatchError
from pipeline.sampling.passes import Cursor, Passes
from pipeline.types import ENDLESS

Sizes = tuple[tuple[int, int], ...]  # (from which step on, rows of a batch), rising from step 0


def sizes_of(batch_size: Any) -> Sizes:
    """A batch size, or a schedule of them, checked.

    Args:
        batch_size: an int, or [(from_step, int), …].

    Raises:
        BatchError: a size is none, or the steps do not rise from 0.

    >>> sizes_of(64), sizes_of([(0, 64), (1000, 128)])
    (((0, 64),), ((0, 64), (1000, 128)))
    """
    if not isinstance(batch_size, list | tuple):
        return ((0, whole("batch_size", batch_size, 1, BatchError)),)
    parts: list[tuple[int, int]] = []
    for part in batch_size:
        if not isinstance(part, Sequence) or isinstance(part, str) or len(part) != 2:
            raise BatchError(
                f"batch_size={batch_size!r}: give pairs (from_step, rows), not {part!r}"
            )
        since = whole("batch_size from_step", part[0], 0, BatchError)
        parts.append((since, whole("batch_size", part[1], 1, BatchError)))
    steps = [since for since, _ in parts]
    if not parts or steps[0] != 0 or steps != sorted(set(steps)):
        raise BatchError(
            f"batch_size={batch_size!r}: the steps of a schedule rise from 0, as in "
            "[(0, 64), (1000, 128)]"
        )
    return tuple(p for i, p in enumerate(parts) if i == 0 or p[1] != parts[i - 1][1])


def size_at(sizes: Sizes, step: int) -> int:
    """Rows of a full batch at a step."""
    return next(size for since, size in reversed(sizes) if since <= step)


def agree(one: Sizes, other: Sizes, step: int) -> bool:
    """Whether two schedules have had the same batches before a step.

    >>> agree(((0, 4),), ((0, 4), (9, 8)), 9), agree(((0, 4),), ((0, 4), (9, 8)), 10)
    (True, False)
    """
    return [p for p in one if p[0] < step] == [p for p in other if p[0] < step]


@dataclass(frozen=True, slots=True)
class SizedPasses:
    """Passes over an indexed dataset whose batch size changes: what Passes is for one size.

    Whether a pass holds another batch is judged by the size of that batch, and as a batch is handed
    out by its own too: a pass whose rest is no batch of either ends.

    Attributes:
        parts: (from_step, passes of one size), rising from step 0.

    >>> passes = SizedPasses.of(((0, 2), (2, 3)), 10)
    >>> [passes.rows(passes.locate(k)) for k in range(5)]
    [(0, 2), (2, 4), (4, 7), (7, 10), (10, 13)]
    """

    parts: tuple[tuple[int, Passes], ...]

    @staticmethod
    def of(sizes: Sizes, n: int, drop: bool = False, steps: int | None = None) -> SizedPasses:
        """Passes of n rows (ENDLESS if they never end)."""
        return SizedPasses(tuple((since, Passes(n, size, drop, steps)) for since, size in sizes))

    def check(self) -> None:
        """Raises BatchError where a pass would hold no batch, or fewer than promised."""
        for _, passes in self.parts:
            passes.check()

    @property
    def n(self) -> int:
        """Rows a pass; ENDLESS if it never ends."""
        return self.parts[0][1].n

    @property
    def per_pass(self) -> int | None:
        """Batches a pass; None if a pass never ends, or not all have as many."""
        first = self.parts[0][1]
        return first.per_pass if len(self.parts) == 1 or first.n == 0 else first.steps

    def size(self, step: int) -> int:
        """Rows of a full batch at a step."""
        return self.parts[self._part(step)][1].batch_size

    def rows(self, cursor: Cursor) -> tuple[int, int]:
        """Stream rows `[start, stop)` of the batch at a cursor."""
        return self.parts[self._part(cursor.step)][1].rows(cursor)

    def after(self, cursor: Cursor) -> Cursor:
        """The cursor once the batch at `cursor` has been handed out."""
        return self.locate(cursor.step + 1, cursor)

    def left(self, cursor: Cursor) -> int | None:
        """Batches from a cursor to the end of its pass; None if it never ends."""
        total = 0
        for passes, end in self._from(cursor.step):
            left = passes.left(cursor)
            if end is None or (left is not None and cursor.step + left <= end):
                return None if left is None else total + left
            total += end - cursor.step
            cursor = passes.locate(end, cursor)
        return total

    def reaches(self, cursor: Cursor) -> bool:
        """Whether these batches, counted from step 0, come to a cursor."""
        if not cursor.step:
            return not cursor.rows
        return bool(self.per_pass != 0 and self.locate(cursor.step) == cursor)

    def locate(self, step: int, anchor: Cursor | None = None) -> Cursor:
        """The cursor at a step, in O(sizes), counted from an anchor reached some other way.

        Raises:
            PositionError: the step lies before the anchor.
        """
        cursor = anchor or Cursor()
        for passes, end in self._from(cursor.step):
            if passes.n != ENDLESS and passes.n and passes.left(cursor) == 0:
                cursor = replace(
                    cursor, rows=(cursor.epoch + 1) * passes.n, epoch=cursor.epoch + 1, batch=0
                )
            if end is None or step < end:
                return passes.locate(step, cursor)
            cursor = passes.locate(end, cursor)
        return cursor

    def _part(self, step: int) -> int:
        return max(i for i, (since, _) in enumerate(self.parts) if since <= step)

    def _from(self, step: int) -> list[tuple[Passes, int | None]]:
        # the sizes from a step on, each with the step at which the next one begins
        first = self._part(step)
        ends = [since for since, _ in self.parts[first + 1 :]]
        passes = [passes for _, passes in self.parts[first:]]
        return list(zip(passes, [*ends, None], strict=True))
