"""Records of tokens: read at random and decoded one by one, serial, by threads, by processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Workload, rate
from pipeline import ArrayRecordSource, Dataset, Loader

BYTES, BATCH = 1024, 128


def _decoded(record: bytes) -> Any:
    return np.frombuffer(record, np.uint16)


def _written(folder: Path, count: int) -> str:
    from array_record.python.array_record_module import ArrayRecordWriter

    path, rng = str(folder / "tokens.array_record"), np.random.default_rng(0)
    writer = ArrayRecordWriter(path, "group_size:1,uncompressed")
    for _ in range(count):
        writer.write(rng.bytes(BYTES))
    writer.close()
    return path


def _warm(path: str) -> None:
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass


def _cold(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Records a second; the limit is the native reader's `read` of 4,096 records."""
    count = max(20_000, int(200_000 * size))
    path, most = _written(folder, count), max(20, int(1000 * size))

    def ours(workers: Any, prepare: Any) -> float:
        prepare(path)
        ds = Dataset(ArrayRecordSource(path), seed=1).shuffle().map(_decoded)
        with Loader(ds.repeat(), BATCH, workers=workers) as loader:
            return rate(loader, BATCH, warm=20, most=most)

    def limit(prepare: Any) -> float:
        from array_record.python.array_record_module import ArrayRecordReader

        prepare(path)
        reader = ArrayRecordReader(path, options="readahead_buffer_size:0,max_parallelism:0")
        rng = np.random.default_rng(0)
        asked = [rng.choice(count, 4096, replace=False).tolist() for _ in range(max(3, most // 32))]
        found = rate((reader.read(some) for some in asked), 4096, warm=1, most=len(asked))
        reader.close()
        return found

    for name, prepare in (("tokens", _warm), ("tokens, cold", _cold)):
        runs = {"lockstep": lambda p=prepare: ours(0, p), "limit": lambda p=prepare: limit(p)}
        what = f"{count:,} records of 1 KiB → shuffle → decode → batch 128"
        yield Workload(name, what, "records/s", runs, {("lockstep", "limit"): 0.6})
    runs = {
        "lockstep 2 processes": lambda: ours(2, _warm),
        "lockstep 2 threads": lambda: ours(_threads(), _warm),
        "serial": lambda: ours(0, _warm),
    }
    aims = {("lockstep 2 threads", "serial"): 1.0}
    yield Workload("tokens, workers", "the same through workers, warm", "records/s", runs, aims)


def _threads() -> Any:
    from pipeline import Threads

    return Threads(2)
