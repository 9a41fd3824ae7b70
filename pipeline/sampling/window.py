"""How records are shuffled near where they lie: each aligned run of them in an order of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.sampling.permutation import Permutation
from pipeline.seeds import derive_seed
from pipeline.types import ENDLESS, At, Site


@dataclass(frozen=True, slots=True)
class WindowShuffle:
    """A shuffle within aligned windows; the last one ends with the epoch.

    Attributes:
        window: records a window; a record moves less far than that.
        name, seed, reshuffle: as of a full shuffle.
    """

    window: int
    name: str = "shuffle"
    seed: int | None = None
    reshuffle: bool = True

    kind: str = field(default="shuffle", init=False)
    random: bool = field(default=True, init=False)

    def length(self, n: int) -> int:
        return n

    def period(self, n: int, period: int) -> int:
        return n

    def resolve(self, at: At, n: int, site: Site) -> At:
        order = at.order if self.reshuffle else np.zeros_like(at.order)
        seed = site.seed if self.seed is None else self.seed
        index = np.empty_like(at.index)
        window = at.index // self.window
        # one permutation for each (epoch, window) that the rows touch
        for epoch, number in np.unique(np.stack([order, window], axis=1), axis=0).tolist():
            here = (order == epoch) & (window == number)
            start = number * self.window
            key = derive_seed(seed, site.path, self.name, epoch, "window", number)
            permute = Permutation(min(self.window, n - start), key)
            index[here] = start + permute(at.index[here] - start)
        return At(at.epoch, order, index)

    def fingerprint(self) -> str:
        seed = "" if self.seed is None else f" seed={self.seed}"
        fixed = "" if self.reshuffle else " reshuffle=False"
        return f"shuffle {self.name} window={self.window}{seed}{fixed}"

    def refusal(self, n: int) -> str | None:
        if n == ENDLESS:
            return "an endless dataset has no epochs to shuffle in: put shuffle before repeat()"
        return None
