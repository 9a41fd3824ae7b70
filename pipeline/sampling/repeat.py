"""How a dataset goes on: epoch after epoch, each with its own order and randomness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.types import ENDLESS, At, Site

MOST_ROWS = 1 << 60


@dataclass(frozen=True, slots=True)
class Repeat:
    """The dataset beneath, `epochs` times over, or without end.

    Attributes:
        epochs: at least 1; None is endless.
    """

    epochs: int | None

    kind = "repeat"
    name = "repeat"
    random = False

    def length(self, n: int) -> int:
        return ENDLESS if self.epochs is None or n == ENDLESS else n * self.epochs

    def period(self, n: int, period: int) -> int:
        return period

    def resolve(self, at: At, n: int, site: Site) -> At:
        if n == ENDLESS:
            return at
        turn, index = np.divmod(at.index, n)
        # an endless dataset comes to its own epoch 1 only if a slice of it does
        times = self.epochs or 1 << 32
        return At(at.epoch * times + turn, at.order * times + turn, index)

    def touched(self, rows: int, n: int) -> int:
        """Rows beneath that the first rows above touch, as if epochs were counted on."""
        return rows

    def fingerprint(self) -> str:
        return f"repeat {'endless' if self.epochs is None else self.epochs}"

    def refusal(self, n: int) -> str | None:
        if self.epochs is not None and n != ENDLESS and n * self.epochs > MOST_ROWS:
            return f"repeat({self.epochs}) makes {n * self.epochs} rows, over 2**60: use repeat()"
        if n == 0 and self.epochs is None:
            return "repeat() of an empty dataset would never give a row"
        return None
