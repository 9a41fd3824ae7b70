"""Mixes of 3, 200 and 1,000 datasets in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measure import Workload, rate
from pipeline import Dataset, Loader, mix

BATCH = 128


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Rows a second of a mix, and of one of its datasets alone."""
    most = max(20, int(600 * size))

    def one(i: int) -> Dataset:
        return Dataset({"x": np.arange(1000) + i}, seed=1).shuffle()

    def ours(parts: int) -> float:
        weights = {f"c{i}": 1 + i % 5 for i in range(parts)}
        ds = mix({name: one(i) for i, name in enumerate(weights)}, weights, stop="never")
        return rate(Loader(ds, BATCH), BATCH, warm=most // 2, most=most)

    for parts in (3, 200, 1000):
        runs = {
            "lockstep": lambda n=parts: ours(n),
            "one dataset": lambda: rate(Loader(one(0).repeat(), BATCH), BATCH, warm=20, most=most),
        }
        what = f"mix of {parts:,} datasets of 1,000 rows → batch 128"
        # 300,000 rows a second where one dataset alone gives 3.3 million
        aims = {("lockstep", "one dataset"): 0.09} if parts == 200 else {}
        yield Workload(f"mix of {parts}", what, "rows/s", runs, aims)
