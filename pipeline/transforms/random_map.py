"""Changes values at random: each row with a generator of its own, whatever its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from pipeline.block import Block, Origin
from pipeline.seeds import Name, RowGenerators, derive_seed
from pipeline.transforms import global_seeds
from pipeline.transforms.calling import Caller, each, made_by
from pipeline.transforms.defaults import FunctionTransform
from pipeline.tree import fresh
from pipeline.types import Site


@final
@dataclass(frozen=True)
class RandomMap(FunctionTransform):
    """Applies `f(row, rng)` to each row; rng hashes seed, component path, name and provenance only.

    rng is a `np.random.Generator` that f may use during this call only. The name tells this
    stage's randomness apart from that of others in the chain.

    Attributes:
        seed_globals: whether to seed `random`, `np.random` and torch's CPU generator from rng
            before each row; afterwards all three go on where they were.
    """

    seed_globals: bool = False
    kind = "random_map"
    random = True

    def apply(self, block: Block, site: Site) -> Block:
        """The rows, changed.

        Raises:
            ChainError: it should seed global generators, but is not in the main thread; or a row
                that f returned is an iterator.
        """
        f, columns = self.caller(block.origin, site)
        if self.seed_globals:
            global_seeds.refuse_threads(site.stage)
            with global_seeds.kept():
                block, rows = each(f, block, site, *columns)
        else:
            block, rows = each(f, block, site, *columns)
        return made_by(site, rows, block.origin, block)

    @property
    def rowwise(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return not self.seed_globals  # global generators are saved and put back once a block

    def caller(self, origin: Origin, site: Site) -> Caller:
        component, epoch = origin.component.tolist(), origin.epoch.tolist()
        record, place = origin.record.tolist(), origin.place.tolist()
        made = {c: self._generators(site, c).at for c in set(component)}

        def generator(i: int) -> np.random.Generator:
            return made[component[i]](epoch[i], record[i], place[i])

        f, seeded = self.f, self._seeded
        if self.seed_globals:
            return lambda i, row: seeded(row, i, generator), (range(len(origin)),)
        return lambda i, row: f(row, generator(i)), (range(len(origin)),)

    def _seeded(self, row: Any, i: int, generator: Callable[[int], np.random.Generator]) -> Any:
        known = global_seeds.torch_generator() is not None
        rng, again = generator(i), _copied(row) if global_seeds.torch_may_come() else row
        global_seeds.seed(rng)
        result = self.f(row, rng)
        if known or global_seeds.torch_generator() is None:
            return result
        # this call imported torch, unseeded: call f again, seeded as for any later reading
        rng = generator(i)
        global_seeds.seed(rng)
        return self.f(again, rng)

    def _generators(self, site: Site, component: int) -> RowGenerators:
        path = site.components[component].path
        return RowGenerators(derive_seed(site.seed, path, self.kind, self.name))

    def options(self) -> tuple[Name, ...]:
        return ("seed_globals",) if self.seed_globals else ()


def _copied(row: Any) -> Any:
    try:
        return fresh(row)
    except Exception:  # a later stage may make of it what can be copied
        return row
