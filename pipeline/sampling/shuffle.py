"""How records are put into a new random order each epoch: a keyed permutation of all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.sampling.permutation import Permutation
from pipeline.seeds import derive_seed
from pipeline.types import ENDLESS, At, Site


@dataclass(frozen=True, slots=True)
class Shuffle:
    """A full shuffle, keyed by (seed, path, name, epoch).

    Attributes:
        name: sets this shuffle's randomness apart from others of the chain.
        seed: instead of the dataset's seed.
        reshuffle: False holds epoch 0's order, here and beneath, in every epoch.
    """

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
        for epoch in np.unique(order):
            here = order == epoch
            key = derive_seed(seed, site.path, self.name, int(epoch))
            index[here] = Permutation(n, key)(at.index[here])
        return At(at.epoch, order, index)

    def fingerprint(self) -> str:
        name = "" if self.name == "shuffle" else f" {self.name}"
        seed = "" if self.seed is None else f" seed={self.seed}"
        return f"shuffle{name}{seed}{'' if self.reshuffle else ' reshuffle=False'}"

    def refusal(self, n: int) -> str | None:
        if n == ENDLESS:
            return "an endless dataset has no last row to shuffle with: put shuffle before repeat()"
        return None
