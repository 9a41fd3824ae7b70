"""Orders: stages that decide which row stands at which position, by arithmetic on positions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import ChainError
from pipeline.types import ENDLESS, At, Site

Beneath = Callable[[int, int, int], Int64s]
"""Positions beneath an order, in [low, high) of one of their epochs: (epoch, low, high)."""


class NoInverseError(Exception):
    """An order or join can tell which row is at a position, but not at which position a row is."""


class Order:
    """Puts the n rows of the dataset beneath into another order, or selects some. Reads nothing.

    A subclass implements `length`, `resolve` and `fingerprint`. The other methods have defaults.
    "Beneath" is the dataset that the order is applied to, "above" the resulting one.

    Attributes:
        kind, name: for messages; the name of a random order also keys its randomness.
        random: whether the order is drawn from a seed.
        pins: whether every epoch above uses epoch 0's order beneath.
        pins_path: whether orders beneath stay those that the dataset beneath has by itself when it
            is joined with others.
        sets_length: whether it has as many rows whatever lies beneath.
        keeps_rows: whether row r of the stream above is row r of the stream beneath.
        seed_globals: whether it seeds the process's global generators; no order does.
    """

    __slots__ = ()

    kind: str = ""
    name: str = ""
    random: bool = False
    pins: bool = False
    pins_path: bool = False
    sets_length: bool = False
    keeps_rows: bool = False
    seed_globals: bool = False

    @property
    def packages(self) -> tuple[()]:
        """Installed packages that the user's functions use; an order calls none."""
        return ()

    @property
    def codes(self) -> tuple[()]:
        """The code of the user's functions; an order calls none."""
        return ()

    @property
    def reshuffles(self) -> bool:
        """Whether epochs differ in their order."""
        return self.random

    def drawn(self, n: int, site: Site) -> tuple[object, ...] | None:
        """What a random order of n rows is derived from; equal values give equal orders."""
        return None

    def length(self, n: int) -> int:
        """Rows in an epoch above, if an epoch beneath has n."""
        raise NotImplementedError

    def period(self, n: int, period: int) -> int:
        """Rows after which the dataset above starts again, given length and period beneath."""
        return self.length(n)

    def resolve(self, at: At, n: int, site: Site) -> At:
        """Where the rows `at` stand in the dataset of n rows beneath.

        Args:
            at: rows of the dataset above.
            n: rows in an epoch beneath.
            site: the order's seed and path.
        """
        raise NotImplementedError

    def refusal(self, n: int) -> str | None:
        """Why the order cannot be applied to n rows, with a remedy; None if it can."""
        return None

    def fingerprint(self) -> str:
        raise NotImplementedError

    def written(self) -> str:
        """The order as code, as users write it on a dataset."""
        return f".{self.kind}()"

    def touched(self, rows: int, n: int) -> int:
        """How many rows beneath the first `rows` above need; over n if an epoch is repeated."""
        return max(rows, n)

    def above(self, index: Int64s, order: int, n: int, site: Site) -> Int64s:
        """Positions of the rows `index` beneath, in the order of one epoch above.

        Raises:
            NoInverseError: they could only be found by trying every position.
        """
        raise NoInverseError

    def places(
        self, beneath: Beneath, order: int, low: int, high: int, n: int, site: Site
    ) -> Int64s:
        """Positions above of the rows sought, in one epoch; at least those in [low, high).

        Args:
            beneath: returns the positions of the rows sought in an epoch beneath.
            order: the epoch whose order is used.
            low, high: the range of positions of interest.
            n: rows in an epoch beneath.
            site: the order's seed and path.

        Raises:
            NoInverseError: the order has no inverse, or too many epochs would have to be tried.
        """
        probe = At(*(np.full(1, v, np.int64) for v in (order, order, 0)))
        under = int(self.resolve(probe, n, site).order[0])
        # an endless dataset is only asked through a slice: look as far as the slice reaches
        most = self.touched(high, n) if n == ENDLESS else n
        return self.above(beneath(under, 0, most), order, n, site)

    def chunks(self, bounds: Int64s | None) -> Int64s | None:
        """The bounds of storage chunks in rows above, given the bounds in rows beneath.

        Raises:
            ChainError: the order moves rows away from where they are stored.
        """
        raise ChainError(
            f"shuffle(chunks=) needs rows in their source's order, but {self.kind} "
            f"'{self.name}' moves them. Put the chunk shuffle before it; over other orders "
            "use shuffle(window=)."
        )
