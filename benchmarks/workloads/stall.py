"""How long a training step waits for its batch, while the device is busy with the last one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Workload, installed
from benchmarks.peers import Fetched, torch_loader
from benchmarks.workloads.images import BATCH, augmented, fetching, written
from pipeline import ArrayRecordSource, Dataset, Loader

STEP = 0.01  # seconds that the device takes; the host is idle meanwhile
WARM = 16


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Milliseconds a step that the loop waits for a batch of 64 augmented images."""
    path, steps = written(folder), max(20, int(100 * size))

    def ours(workers: Any) -> float:
        ds = Dataset(ArrayRecordSource(path), seed=1).shuffle().random_map(augmented).repeat()
        with Loader(ds, BATCH, workers=workers) as loader:
            return waited(loader, steps)

    def theirs() -> float:
        rows = Fetched(BATCH * (steps + WARM + 1), lambda: fetching(path))
        return waited(torch_loader(rows, BATCH, 2), steps)

    runs: dict[str, Callable[[], float]] = {
        "lockstep": lambda: ours(0),
        "lockstep 2 processes": lambda: ours(2),
        **({"torch, 2 processes": theirs} if installed("torch") else {}),
    }
    what = f"batches of {BATCH} augmented images for steps of {STEP * 1e3:.0f} ms"
    yield Workload("data stall", what, "ms a step", runs, less=True)


def waited(batches: Iterable[Any], steps: int) -> float:
    """Milliseconds that a step waits for the next batch, once some have come."""
    iterator, waiting = iter(batches), 0.0
    for step in range(WARM + steps):
        started = time.perf_counter()
        next(iterator)
        if step >= WARM:
            waiting += time.perf_counter() - started
        time.sleep(STEP)
    return waiting / steps * 1e3
