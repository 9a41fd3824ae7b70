"""What an order is: a stage that decides which row stands where, by arithmetic on positions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import ChainError
from pipeline.types import ENDLESS, At, Site

Beneath = Callable[[int, int, int], Int64s]
"""Positions beneath an order, in [low, high) of one of their epochs: (epoch, low, high)."""


class NoInverseError(Exception):
    """An order or join says only which row stands where, not where a row stands."""


class Order:
    """Puts n rows beneath it into another order, or chooses among them; nothing is read.

    An order writes `length`, `resolve` and `fingerprint`. The other answers have a default.

    Attributes:
        kind, name: for messages; those of random orders tell their randomness apart.
        random: whether the order is drawn from a seed.
        pins: whether all epochs above have the order of epoch 0 beneath.
        pins_path: whether orders beneath are those that the dataset beneath has alone, whatever
            joins it is put into.
        keeps_rows: whether row r of the stream above is row r of the stream beneath.
        seed_globals: whether it seeds the process's global generators: none does.
    """

    __slots__ = ()

    kind: str = ""
    name: str = ""
    random: bool = False
    pins: bool = False
    pins_path: bool = False
    keeps_rows: bool = False
    seed_globals: bool = False

    @property
    def packages(self) -> tuple[()]:
        """Installed packages that the user's functions use."""
        return ()

    @property
    def codes(self) -> tuple[()]:
        """The code of the user's functions: an order calls none."""
        return ()

    @property
    def reshuffles(self) -> bool:
        """Whether each epoch has an order of its own."""
        return self.random

    def drawn(self, n: int, site: Site) -> tuple[object, ...] | None:
        """What a random order of n rows is drawn from; those of equal ones are the same."""
        return None

    def length(self, n: int) -> int:
        """Rows an epoch above n rows an epoch."""
        raise NotImplementedError

    def period(self, n: int, period: int) -> int:
        """Rows after which the dataset above begins anew, given length and period beneath."""
        return self.length(n)

    def resolve(self, at: At, n: int, site: Site) -> At:
        """Where the rows `at` of this dataset stand in the dataset of n rows beneath."""
        raise NotImplementedError

    def refusal(self, n: int) -> str | None:
        """Why it cannot stand on n rows, with the remedy; None if it can."""
        return None

    def fingerprint(self) -> str:
        raise NotImplementedError

    def written(self) -> str:
        """As people write it on a dataset."""
        return f".{self.kind}()"

    def touched(self, rows: int, n: int) -> int:
        """How many rows beneath the first `rows` rows above touch; more than n if drawn again."""
        return max(rows, n)

    def above(self, index: Int64s, order: int, n: int, site: Site) -> Int64s:
        """At which positions the rows `index` beneath stand in one epoch's order.

        Raises:
            NoInverseError: only looking at every row tells.
        """
        raise NoInverseError

    def places(
        self, beneath: Beneath, order: int, low: int, high: int, n: int, site: Site
    ) -> Int64s:
        """Where rows that are looked for stand in an epoch above, at least those in [low, high).

        Args:
            beneath: where they stand in an epoch beneath.
            order: the epoch whose order holds.
            low, high: of the epoch's positions.
            n: rows an epoch beneath.
            site: of this order.

        Raises:
            NoInverseError: the order has no inverse, or too many epochs would be tried.
        """
        probe = At(*(np.full(1, v, np.int64) for v in (order, order, 0)))
        under = int(self.resolve(probe, n, site).order[0])
        # of an endless dataset only a slice is ever asked for: as far as that reaches
        most = self.touched(high, n) if n == ENDLESS else n
        return self.above(beneath(under, 0, most), order, n, site)

    def chunks(self, bounds: Int64s | None) -> Int64s | None:
        """The bounds of storage's chunks as rows stand above, given those beneath.

        Raises:
            ChainError: the order moves rows away from where they lie.
        """
        raise ChainError(
            f"shuffle(chunks=) needs rows in their source's order, but {self.kind} "
            f"'{self.name}' moves them. Put the chunk shuffle before it; over other orders "
            "use shuffle(window=)."
        )
