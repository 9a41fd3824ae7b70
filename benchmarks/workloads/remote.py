"""Records of an object store that takes its time: an emulator on this machine, and a delay."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Workload, installed, rate
from benchmarks.workloads.tokens import written
from pipeline import ArrayRecordSource, Dataset, Loader, Threads

BATCH, DELAYS = 128, (0.0, 0.02, 0.05)


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Records a second at 0, 20 and 50 ms a request, a request a record."""
    if not (installed("gcp_storage_emulator") and installed("pytest")):
        return
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    from tests.emulators.fixtures import Gcs

    most, store = max(4, int(24 * size)), Gcs()
    try:
        url = store.upload(written(folder, 50_000))

        def ours(workers: Any, delay: float) -> float:
            store.control(latency=delay)
            source = ArrayRecordSource(url, storage=store.storage())
            with Loader(Dataset(source, seed=1).shuffle(), BATCH, workers=workers) as loader:
                return rate(loader, BATCH, warm=2, most=most)

        def limit(delay: float) -> float:
            # as many requests as the store is asked at once, and nothing but the delay
            store.control(latency=delay)
            storage = store.storage()
            stat, rng = storage.stat(url), np.random.default_rng(0)

            def batches() -> Iterator[Any]:
                for _ in range(most + 2):
                    starts = rng.integers(0, stat.size - 1024, BATCH).tolist()
                    yield storage.read([stat.range(s, s + 1024) for s in starts])

            return rate(batches(), BATCH, warm=2, most=most)

        for delay in DELAYS:
            runs: dict[str, Callable[[], float]] = {
                "lockstep": lambda d=delay: ours(0, d),
                "lockstep 4 threads": lambda d=delay: ours(Threads(4), d),
                "limit": lambda d=delay: limit(d),
            }
            what = f"records of 1 KiB at random over HTTP, {delay * 1e3:.0f} ms a request"
            yield Workload(f"remote, {delay * 1e3:.0f} ms", what, "records/s", runs)
    finally:
        store.close()
