"""Shuffling: a new random order in each epoch, of all rows, or of rows near each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from pipeline.block import Int64s
from pipeline.sampling.groups import grouped
from pipeline.sampling.order import Order
from pipeline.sampling.permutation import KEPT, Permutation
from pipeline.seeds import Name, derive_seed
from pipeline.types import ENDLESS, At, Site


class Reach(Protocol):
    """How far a shuffle moves rows: a bijection on [0, n), different for each epoch."""

    def place(self, index: Int64s, n: int, names: tuple[Name, ...]) -> Int64s:
        """The rows at positions `index` of an epoch of n rows: int64[m] to int64[m].

        Args:
            index: int64[m] in [0, n).
            n: rows in an epoch.
            names: identifies shuffle and epoch; keys are derived from it, with further names.
        """
        ...

    def back(self, rows: Int64s, n: int, names: tuple[Name, ...]) -> Int64s:
        """The positions of `rows`: the inverse of `place`."""
        ...

    def __str__(self) -> str:
        """For the fingerprint; "" for a full shuffle."""
        ...


@lru_cache(KEPT)  # for the epochs that the batches of many datasets are in
def _everywhere(n: int, names: tuple[Name, ...]) -> Permutation:
    return Permutation(n, derive_seed(*names))


@dataclass(frozen=True, slots=True)
class Everywhere:
    """A full shuffle: a row may move anywhere."""

    def place(self, index: Int64s, n: int, names: tuple[Name, ...]) -> Int64s:
        return _everywhere(n, names)(index)

    def back(self, rows: Int64s, n: int, names: tuple[Name, ...]) -> Int64s:
        """The positions of `rows`."""
        return _everywhere(n, names).inverse(rows)

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Window:
    """Shuffles within aligned windows of rows. The last one ends with the epoch.

    Attributes:
        rows: rows in a window; no row moves as far as that.
    """

    rows: int

    def place(self, index: Int64s, n: int, names: tuple[Name, ...]) -> Int64s:
        out = np.empty_like(index)
        for number, here in grouped(index // self.rows):
            start, permutation = self._window(number, n, names)
            out[here] = start + permutation(index[here] - start)
        return out

    def back(self, rows: Int64s, n: int, names: tuple[Name, ...]) -> Int64s:
        """The positions of `rows`."""
        out = np.empty_like(rows)
        for number, here in grouped(rows // self.rows):
            start, permutation = self._window(number, n, names)
            out[here] = start + permutation.inverse(rows[here] - start)
        return out

    def _window(self, number: int, n: int, names: tuple[Name, ...]) -> tuple[int, Permutation]:
        start = number * self.rows
        key = derive_seed(*names, "window", number)
        return start, Permutation(min(self.rows, n - start), key)

    def __str__(self) -> str:
        return f"window={self.rows}"


@dataclass(frozen=True, slots=True)
class Shuffle(Order):
    """A random order, keyed by (seed, path, name, epoch).

    Attributes:
        name: distinguishes this shuffle's randomness from that of others in the chain.
        seed: replaces the dataset's seed; None to use that.
        reshuffle: False to use epoch 0's order, here and beneath, in every epoch.
        reach: how far rows move.
    """

    name: str = "shuffle"
    seed: int | None = None
    reshuffle: bool = True
    reach: Reach = Everywhere()

    kind = "shuffle"
    random = True

    def length(self, n: int) -> int:
        return n

    @property
    def pins(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return not self.reshuffle

    @property
    def pins_path(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return not self.reshuffle

    @property
    def reshuffles(self) -> bool:
        return self.reshuffle

    def resolve(self, at: At, n: int, site: Site) -> At:
        order = at.order if self.reshuffle else np.zeros_like(at.order)
        if len(order) and np.count_nonzero(order == (first := order.item(0))) == len(order):
            # nearly always: a batch lies in one epoch
            names = self._names(first, site)
            return At(at.epoch, order, self.reach.place(at.index, n, names))
        index = np.empty_like(at.index)
        for epoch, here in grouped(order):
            names = self._names(epoch, site)
            index[here] = self.reach.place(at.index[here], n, names)
        return At(at.epoch, order, index)

    def above(self, index: Int64s, order: int, n: int, site: Site) -> Int64s:
        """Positions of the rows `index` beneath, in the order of one epoch."""
        return self.reach.back(index, n, self._names(order if self.reshuffle else 0, site))

    def drawn(self, n: int, site: Site) -> tuple[object, ...] | None:
        # the epoch does not matter: two shuffles agree in every epoch or in none
        return *self._names(0, site), n, str(self.reach)

    def _names(self, epoch: int, site: Site) -> tuple[Name, ...]:
        seed = site.seed if self.seed is None else self.seed
        return seed, site.path, self.name, epoch

    def written(self) -> str:
        seed = "" if self.seed is None else f"seed={self.seed}"
        name = "" if self.name == "shuffle" else f"name={self.name!r}"
        fixed = "" if self.reshuffle else "reshuffle=False"
        options = filter(None, (seed, str(self.reach), fixed, name))
        return f".shuffle({', '.join(options)})"

    def fingerprint(self) -> str:
        reach = str(self.reach)
        name = self.name if reach or self.name != "shuffle" else ""
        seed = "" if self.seed is None else f"seed={self.seed}"
        fixed = "" if self.reshuffle else "reshuffle=False"
        return " ".join(part for part in ("shuffle", name, reach, seed, fixed) if part)

    def refusal(self, n: int) -> str | None:
        if n == ENDLESS:
            return (
                "an endless dataset has no last row to shuffle with: put shuffle before repeat(), "
                "or into the datasets of a mix"
            )
        return None
