"""Records in each library's own shards: written by it, shuffled by it, on a local disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Workload, installed, rate
from benchmarks.workloads.tokens import BATCH, BYTES, written
from pipeline import ArrayRecordSource, Dataset, Loader

COUNT = 50_000


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Records a second, serial: bytes as they are stored, in batches."""
    count, most = max(10_000, int(COUNT * size)), max(20, int(380 * size))
    path = written(folder, count)

    def ours() -> float:
        loader = Loader(Dataset(ArrayRecordSource(path), seed=1).shuffle().repeat(), BATCH)
        return rate(loader, BATCH, warm=8, most=most)

    runs: dict[str, Callable[[], float]] = {"lockstep": ours}
    least = min(most, count // BATCH - 8)
    if installed("litdata"):
        chunks = _litdata(folder, count)
        runs["litdata"] = lambda: rate(chunks(), BATCH, warm=8, most=least)
    if installed("streaming"):
        shards = _streaming(folder, count)
        runs["streaming"] = lambda: rate(shards(), BATCH, warm=8, most=least)
    what = f"{count:,} records of 1 KiB in its own shards → shuffle → batch {BATCH}"
    yield Workload("shards", what, "records/s", runs)


def _records(count: int) -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    return (rng.bytes(BYTES) for _ in range(count))


def _litdata(folder: Path, count: int) -> Callable[[], Any]:
    from litdata import StreamingDataLoader, StreamingDataset  # pyright: ignore[reportMissingImports]
    from litdata.streaming.writer import BinaryWriter  # pyright: ignore[reportMissingImports]

    place = str(folder / "litdata")
    writer = BinaryWriter(place, chunk_bytes="16MB")
    for i, record in enumerate(_records(count)):
        writer[i] = record
    writer.done()
    writer.merge()

    def batches() -> Any:
        rows = StreamingDataset(place, shuffle=True, seed=1)
        return StreamingDataLoader(rows, batch_size=BATCH, collate_fn=list)

    return batches


def _streaming(folder: Path, count: int) -> Callable[[], Any]:
    import torch
    from streaming import MDSWriter, StreamingDataset  # pyright: ignore[reportMissingImports]

    place = str(folder / "streaming")
    with MDSWriter(out=place, columns={"x": "bytes"}) as writer:
        for record in _records(count):
            writer.write({"x": record})

    def batches() -> Any:
        rows = StreamingDataset(local=place, shuffle=True, shuffle_seed=1, batch_size=BATCH)
        return torch.utils.data.DataLoader(rows, BATCH, collate_fn=list)

    return batches
