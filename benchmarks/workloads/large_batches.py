"""Batches of 32 MiB: what it costs to bring bytes from a function to the loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import STARTED, Workload, rate
from pipeline import Dataset, Loader

ROWS, BYTES = 32, 1 << 20


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """MiB a second; the limit is memcpy into memory that is used again."""
    most, block = max(4, int(60 * size)), np.ones(BYTES, np.uint8)

    def ours(workers: Any) -> float:
        ds = Dataset(range(1 << 20)).map(lambda x: block)
        with Loader(ds, ROWS, workers=workers) as loader:
            return rate(loader, ROWS, warm=4, most=most, after=STARTED if workers else 0.0)

    def limit() -> float:
        batch = np.empty((ROWS, BYTES), np.uint8)

        def batches() -> Iterator[Any]:
            for _ in range(most + 4):
                for row in batch:
                    row[:] = block
                yield batch

        return rate(batches(), ROWS, warm=4, most=most)

    runs = {"lockstep": lambda: ours(0), "lockstep 2 processes": lambda: ours(2), "limit": limit}
    yield Workload("32 MiB batches", "rows of 1 MiB → batch 32", "MiB/s", runs)
