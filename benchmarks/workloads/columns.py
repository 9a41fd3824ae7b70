"""Columns of Parquet files: shuffled in full, and by chunks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measure import Workload, rate
from pipeline import Dataset, Loader

BATCH = 256


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Rows a second; the limit is pyarrow reading the file from start to end."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, rng = max(50_000, int(500_000 * size)), np.random.default_rng(0)
    path = str(folder / "columns.parquet")
    table = pa.table({"x": np.arange(count), **{f"f{i}": rng.random(count) for i in range(4)}})
    pq.write_table(table, path, row_group_size=20_000)
    most = count // BATCH - 20

    def ours(chunks: int | None) -> float:
        ds = Dataset(path, seed=1)
        ds = ds.shuffle() if chunks is None else ds.shuffle(chunks=chunks)
        return rate(Loader(ds, BATCH), BATCH, warm=4, most=most)

    def limit() -> float:
        batches = pq.ParquetFile(path).iter_batches(BATCH)
        return rate(batches, BATCH, warm=4, most=most)

    runs = {
        "lockstep chunks": lambda: ours(8),
        "lockstep full": lambda: ours(None),
        "limit": limit,
    }
    yield Workload("Parquet", f"{count:,} rows of 5 columns → shuffle → batch 256", "rows/s", runs)
