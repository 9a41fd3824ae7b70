"""Order alone: which rows make each batch, with nothing to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measure import Workload, rate
from pipeline import Dataset, Loader

N, BATCH = 1_000_000, 1024


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Rows a second of shuffled columns, against NumPy's take of a permutation in memory."""
    most = max(20, int(900 * size))
    values = np.arange(N)

    def ours() -> float:
        return rate(Loader(Dataset(values, seed=1).shuffle(), BATCH), BATCH, warm=20, most=most)

    def limit() -> float:
        order = np.random.default_rng(0).permutation(N)
        spans = (order[i * BATCH : (i + 1) * BATCH] for i in range(most + 20))
        return rate((values[span] for span in spans), BATCH, warm=20, most=most)

    runs = {"lockstep": ours, "limit": limit}
    yield Workload("order", "1,000,000 numbers → shuffle → batch 1,024", "rows/s", runs)
