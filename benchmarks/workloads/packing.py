"""Packing documents into rows of 2,048 tokens, in each way of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Workload, installed, rate
from pipeline import Dataset, Loader

LENGTH, BATCH = 2048, 8
BINS: dict[str, Any] = {"num_packing_bins": 64, "shuffle_bins": False}
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "split": ("ConcatThenSplitIterDataset", {}),
    "first_fit": ("FirstFitPackIterDataset", BINS),
    "best_fit": ("BestFitPackIterDataset", BINS),
}


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Packed rows a second; the limit copies the tokens once."""
    most, rng = max(10, int(200 * size)), np.random.default_rng(0)
    sizes = np.clip(rng.lognormal(5.8, 0.9, 20_000).astype(int), 8, LENGTH)
    documents = [np.arange(n, dtype=np.int32) for n in sizes]

    def ours(how: Any) -> float:
        ds = Dataset(documents, seed=1).shuffle().repeat().pack(LENGTH, how=how)
        return rate(Loader(ds, BATCH), BATCH, warm=4, most=most)

    def limit() -> float:
        row = np.zeros((BATCH, LENGTH), np.int32)
        source = np.ones((BATCH, LENGTH), np.int32)
        return rate(
            (row.__setitem__(slice(None), source) for _ in range(most + 4)),
            BATCH,
            warm=4,
            most=most,
        )

    for how, (peer, options) in PEERS.items():
        runs: dict[str, Callable[[], float]] = {"lockstep": lambda h=how: ours(h)}
        if installed("grain"):
            runs["grain"] = lambda p=peer, o=options: _grain(documents, p, o, most // 4)
        what = f"documents of about 500 tokens → rows of {LENGTH:,}, {how} → batch {BATCH}"
        aims = {("lockstep", "grain"): 8.0}
        yield Workload(f"packing, {how}", what, "rows/s", {**runs, "limit": limit}, aims)


def _grain(documents: list[Any], peer: str, options: dict[str, Any], most: int) -> float:
    import grain  # pyright: ignore[reportMissingImports]

    source = grain.MapDataset.source([{"tokens": d} for d in documents]).shuffle(seed=1).repeat()
    rows = source.to_iter_dataset(grain.ReadOptions(num_threads=0))
    packed = getattr(grain.experimental, peer)(rows, length_struct={"tokens": LENGTH}, **options)
    return rate(packed.batch(BATCH), BATCH, warm=4, most=most)
