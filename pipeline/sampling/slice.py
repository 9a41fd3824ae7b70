"""Slicing: a range of positions in epoch 0's order, so every epoch has the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import ChainError
from pipeline.sampling.order import Order
from pipeline.types import ENDLESS, At, Site


@dataclass(frozen=True, slots=True)
class Slice(Order):
    """Rows `start, start + step, …` of epoch 0's order beneath, `count` of them.

    Attributes:
        start, step: int, in rows beneath; step may be negative.
        count: rows in an epoch.
    """

    start: int
    step: int
    count: int

    kind = "slice"
    name = "slice"
    pins = True
    pins_path = True
    sets_length = True

    def length(self, n: int) -> int:
        return self.count

    def resolve(self, at: At, n: int, site: Site) -> At:
        return At(at.epoch, np.zeros_like(at.order), self.start + at.index * self.step)

    def touched(self, rows: int, n: int) -> int:
        """How many rows beneath the first `rows` above need; over n if an epoch is repeated."""
        last = self.start + (min(rows, self.count) - 1) * self.step
        return max(self.start, last) + 1 if rows <= self.count or n == ENDLESS else n + 1

    def above(self, index: Int64s, order: int, n: int, site: Site) -> Int64s:
        """Positions of the rows `index` beneath; rows outside of the slice have none."""
        steps, rest = np.divmod(index - self.start, self.step)
        return steps[(rest == 0) & (steps >= 0) & (steps < self.count)]

    def chunks(self, bounds: Int64s | None) -> Int64s | None:
        if self.step != 1 and self.count > 1:
            return Order.chunks(self, bounds)
        if bounds is None:
            return None
        return np.clip(bounds, self.start, self.start + self.count) - self.start

    def written(self) -> str:
        stop = self.start + self.count * self.step
        step = "" if self.step == 1 else f":{self.step}"
        return f"[{self.start}:{stop if stop >= 0 else ''}{step}]"

    def fingerprint(self) -> str:
        return f"slice {self.start} step {self.step} count {self.count}"


def sliced(item: slice, n: int) -> Slice:
    """The slice of n rows that `ds[item]` stands for.

    Raises:
        ChainError: it holds something other than whole numbers, or has no end though the dataset is
            endless.

    >>> sliced(slice(None, None, -2), 5)
    Slice(start=4, step=-2, count=3)
    """
    if n == ENDLESS and (item.stop is None or min(item.start or 0, item.stop) < 0):
        raise ChainError(
            f"a slice of an endless dataset needs a start and a stop from 0 on: {item}"
        )
    try:
        chosen = range(n)[item]
    except (TypeError, ValueError) as e:
        raise ChainError(f"{item}: give whole numbers, and no step of 0") from e
    return Slice(chosen.start, chosen.step, len(chosen))
