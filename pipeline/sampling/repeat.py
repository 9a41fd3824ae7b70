"""Repeating a dataset: epoch after epoch, each with its own order and randomness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.block import Int64s
from pipeline.sampling.order import Beneath, NoInverseError, Order
from pipeline.types import ENDLESS, At, Site

MOST_ROWS = 1 << 60
TIMES = 1 << 32  # epochs beneath in one epoch of an endless repeat; only a slice gets to the next
MOST_TURNS = 1 << 16  # at most so many epochs are searched for positions of rows


@dataclass(frozen=True, slots=True)
class Repeat(Order):
    """The dataset beneath, repeated `epochs` times or without end.

    Attributes:
        epochs: at least 1; None for endless.
    """

    epochs: int | None

    kind = "repeat"
    name = "repeat"
    keeps_rows = True

    def length(self, n: int) -> int:
        return ENDLESS if self.epochs is None or n == ENDLESS else n * self.epochs

    def period(self, n: int, period: int) -> int:
        return period

    def resolve(self, at: At, n: int, site: Site) -> At:
        if n == ENDLESS:
            return at
        turn, index = np.divmod(at.index, n)
        times = self.epochs or TIMES
        return At(at.epoch * times + turn, at.order * times + turn, index)

    def touched(self, rows: int, n: int) -> int:
        """How many rows beneath the first `rows` rows above need, counted over epochs."""
        return rows

    def places(
        self, beneath: Beneath, order: int, low: int, high: int, n: int, site: Site
    ) -> Int64s:
        if n == ENDLESS:
            return beneath(order, low, high)
        first = order * (self.epochs or TIMES)
        found = [np.zeros(0, np.int64)]
        for turn in epochs_between(low, high, n):
            found.append(turn * n + beneath(first + turn, 0, n))
        return np.concatenate(found)

    def written(self) -> str:
        return f".repeat({'' if self.epochs is None else self.epochs})"

    def fingerprint(self) -> str:
        return f"repeat {'endless' if self.epochs is None else self.epochs}"

    def refusal(self, n: int) -> str | None:
        if self.epochs is not None and n != ENDLESS and n * self.epochs > MOST_ROWS:
            return f"repeat({self.epochs}) makes {n * self.epochs} rows, over 2**60: use repeat()"
        if n == 0 and self.epochs is None:
            return "repeat() of an empty dataset would never give a row"
        return None


def epochs_between(low: int, high: int, n: int) -> range:
    """The epochs of n rows that hold the stream rows `[low, high)`.

    Raises:
        NoInverseError: there are too many to search.
    """
    turns = range(low // n, -(-high // n))
    if len(turns) > MOST_TURNS:
        raise NoInverseError
    return turns
