"""What a loader of 10^4 to 10^10 records takes of memory: a shuffle is no table."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Workload
from pipeline import Dataset, Loader


class _Numbers:
    # a range that is longer than len() may say
    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    def read(self, indices: object) -> list[int]:
        return [int(i) for i in indices]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType, reportUnknownArgumentType, reportAttributeAccessIssue]


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Peak KiB that Python allocates for a loader and its first 20 batches."""

    def peak(n: int) -> float:
        tracemalloc.start()
        try:
            loader = Loader(Dataset(_Numbers(n), seed=1).shuffle(), 128)
            for _ in range(20):
                next(loader)
            return tracemalloc.get_traced_memory()[1] / 1024
        finally:
            tracemalloc.stop()

    runs = {f"lockstep 10^{k}": lambda k=k: peak(10**k) for k in (4, 6, 8, 10)}
    yield Workload("memory", "a shuffled loader and 20 batches of 128", "KiB", runs, less=True)
