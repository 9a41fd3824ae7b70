"""Which rows make batch k: arithmetic over passes, batch sizes and remainders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import BatchError, PositionError
from pipeline.types import ENDLESS

# of a plain chain (block, how many of its rows were given); of a mix it holds its components'
Place = tuple[Any, ...]
Lane = tuple[int, Place]


class Parts(tuple[tuple[str, Place], ...]):
    """In a place: those of a mix's components, (name, place) sorted by name."""


def freeze(place: Any) -> Any:
    """A place from plain JSON-able data.

    Raises:
        ValueError: it is none.

    >>> freeze([3, {"en": [0, 1]}])
    (3, (('en', (0, 1)),))
    """
    if isinstance(place, Mapping):
        return Parts(sorted((str(name), freeze(at)) for name, at in place.items()))
    if isinstance(place, list | tuple):
        return tuple(map(freeze, place))
    number = int(place)
    if isinstance(place, bool) or number != place or number < 0:
        raise ValueError(f"{place!r} should be a whole number from 0 on")
    return number


def thaw(place: Any) -> Any:
    """A place as plain JSON-able data."""
    if isinstance(place, Parts):
        return {name: thaw(at) for name, at in place}
    return [thaw(at) for at in place] if isinstance(place, tuple) else place


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a stream of batches stands, just before a batch.

    Attributes:
        rows: stream rows given so far; of an indexed dataset, the next batch's first row.
        step: data step of the next batch.
        epoch: pass of the next batch.
        batch: batches of this pass given so far.
        lanes: of a counted dataset, where each of this process's lanes stands.
        taken: of a counted dataset, rows that each lane was asked for in this pass.
    """

    rows: int = 0
    step: int = 0
    epoch: int = 0
    batch: int = 0
    lanes: tuple[Lane, ...] = ()
    taken: int = 0


@dataclass(frozen=True, slots=True)
class Passes:
    """Batches of one size of an indexed dataset: pass p is rows `[p n, (p + 1) n)`.

    A pass of an endless dataset is `steps` batches.

    Attributes:
        n: rows a pass; ENDLESS if it never ends.
        batch_size: rows of a full batch.
        drop: leave out a short last batch.
        steps: end a pass after so many batches.

    >>> passes = Passes(n=10, batch_size=4, drop=False)
    >>> [passes.rows(passes.locate(k)) for k in range(4)]
    [(0, 4), (4, 8), (8, 10), (10, 14)]
    """

    n: int
    batch_size: int
    drop: bool = False
    steps: int | None = None

    def check(self) -> None:
        """Raises BatchError where a pass would hold no batch, or fewer than promised."""
        if self.n == ENDLESS:
            return
        natural = self._fit(self.n)
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
        """Batches a pass; None if a pass never ends."""
        if self.n == ENDLESS:
            return self.steps
        natural = self._fit(self.n)
        return natural if self.steps is None else min(self.steps, natural)

    def rows(self, cursor: Cursor) -> tuple[int, int]:
        """Stream rows `[start, stop)` of the batch at a cursor."""
        stop = cursor.rows + self.batch_size
        if self.n != ENDLESS:
            stop = min(stop, (cursor.epoch + 1) * self.n)
        return cursor.rows, stop

    def left(self, cursor: Cursor) -> int | None:
        """Batches from a cursor to the end of its pass; None if it never ends."""
        left = None
        if self.n != ENDLESS:
            left = max(0, self._fit((cursor.epoch + 1) * self.n - cursor.rows))
        if self.steps is not None:
            most = max(0, self.steps - cursor.batch)
            left = most if left is None else min(left, most)
        return left

    def locate(self, step: int, anchor: Cursor | None = None) -> Cursor:
        """The cursor at a step, in O(1), counted from an anchor that was reached some other way.

        Raises:
            PositionError: the step lies before the anchor.
        """
        anchor = anchor or Cursor()
        ahead = step - anchor.step
        if ahead < 0:
            raise PositionError(
                f"step {step} lies before step {anchor.step}, where this loader took over a state "
                "of other batches. For earlier steps use a loader of the old batch size and rule."
            )
        left = self.left(anchor)
        if left is None or ahead < left:
            rows = anchor.rows + ahead * self.batch_size
            return replace(anchor, rows=rows, step=step, batch=anchor.batch + ahead)
        per_pass = self.per_pass
        if not per_pass:
            raise PositionError(f"there is no step {step}: the dataset is empty")
        turns, batch = divmod(ahead - left, per_pass)
        epoch = anchor.epoch + 1 + turns
        first = epoch * self.n
        if self.n == ENDLESS:
            first = anchor.rows + (left + turns * per_pass) * self.batch_size
        return Cursor(first + batch * self.batch_size, step, epoch, batch)

    def _fit(self, rows: int) -> int:
        return rows // self.batch_size if self.drop else -(-rows // self.batch_size)
