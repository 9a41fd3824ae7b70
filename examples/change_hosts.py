"""One run on 1, 4, 2, then 1 hosts: the same global batches, though each host packs its own."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from pipeline import Dataset, Loader, merge
from pipeline.debug.digest import digest

BATCH = 8
STEPS = 5


def dataset() -> Dataset:
    """Packed documents in 4 lanes: up to 4 hosts can share them."""
    lengths = np.random.default_rng(0).integers(1, 30, size=400)
    documents = [np.full(n, i, np.int32) for i, n in enumerate(lengths)]
    return Dataset(documents, seed=3).shuffle().pack(32, how="first_fit").lanes(4).repeat()


def global_batch(parts: list[Any]) -> Any:
    """What a mesh of these hosts would see: their rows end to end."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def main() -> None:
    alone = Loader(dataset(), BATCH)
    state = alone.state_dict()
    different = 0
    for hosts in (1, 4, 2, 1):
        loaders = [Loader(dataset(), BATCH, host=host, hosts=hosts) for host in range(hosts)]
        for loader in loaders:
            loader.load_state_dict(state)
        first = loaders[0].step
        for _ in range(STEPS):
            batch = global_batch([next(loader) for loader in loaders])
            different += digest(batch) != digest(next(alone))
        state = merge([loader.state_dict() for loader in loaders])
        rows = BATCH // hosts
        steps = f"{first}..{first + STEPS - 1}"
        print(f"{hosts} hosts, {rows} rows each: steps {steps}, lanes {state['lanes']}")
    print(f"{different} of {4 * STEPS} global batches differ from the run on one host")
    if different:
        sys.exit(1)


if __name__ == "__main__":
    main()
