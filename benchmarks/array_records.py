"""ArrayRecord at random: our reader beside the native one, and the loader beside its peers.

Peers that are not installed are left out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from pipeline import ArrayRecordSource, Dataset, Loader, Threads

LEAN = "readahead_buffer_size:0,max_parallelism:0"
BATCH, RECORDS = 128, 200_000


def write(path: Path, n: int, size: int, options: str) -> str:
    """n records of `size` bytes: uint16 tokens below 32,768."""
    tokens = np.random.default_rng(0).integers(0, 1 << 15, (1024, size // 2)).astype(np.uint16)
    rows = [row.tobytes() for row in tokens]
    writer = ArrayRecordWriter(str(path), options)
    for i in range(n):
        writer.write(rows[i % 1024])
    writer.close()
    return str(path)


def micros(read: Callable[[Any], Any], n: int, length: int) -> float:
    """Microseconds a record: the best of five rounds of calls with n random indices.

    A round is at most 100 calls, and ends with the one that passes 50 ms.
    """
    rng, rounds = np.random.default_rng(n), []
    for _ in range(5):
        wanted = [rng.integers(0, length, n) for _ in range(max(2, min(100, 4000 // n)))]
        start, calls = time.perf_counter(), 0
        while calls < len(wanted) and time.perf_counter() - start < 0.05:
            read(wanted[calls])
            calls += 1
        rounds.append((time.perf_counter() - start) / calls / n * 1e6)
    return min(rounds)


def readers(folder: Path) -> None:
    print("us a record, best of 5: ours, ours verifying, native read(list), native seek + read")
    for n, size, group in [
        (1000, 1024, 1),
        (200_000, 1024, 1),
        (1_000_000, 128, 1),
        (200_000, 1024, 100),
    ]:
        for codec in ("zstd:3", "uncompressed"):
            path = write(folder / "a.array_record", n, size, f"group_size:{group},{codec}")
            ours, sure = ArrayRecordSource(path), ArrayRecordSource(path, verify=True)
            native = ArrayRecordReader(path, options=LEAN)

            def seek(indices: Any, native: Any = native) -> Any:
                return [(native.seek(i), native.read())[1] for i in indices.tolist()]

            def many(indices: Any, native: Any = native) -> Any:
                return native.read(indices.tolist())

            print(f"  {n:8} records of {size} bytes, groups of {group}, {codec}")
            for k in (1, 16, 128, 2048):
                spent = [micros(f, k, n) for f in (ours.read, sure.read, many, seek)]
                print(f"    {k:5} at once: " + "".join(f"{s:9.1f}" for s in spent))


def rate(batches: Iterator[Any], size: int = BATCH) -> float:
    """Records a second, the best of five rounds of half a second, after a first one."""
    best = 0.0
    for _ in range(6):
        start, n = time.perf_counter(), 0
        while time.perf_counter() - start < 0.5:
            next(batches)
            n += size
        best = max(best, n / (time.perf_counter() - start))
    return best


def decode(record: bytes) -> Any:
    return np.frombuffer(record, np.uint16)


def raw(path: str) -> Iterator[Any]:
    reader, rng = ArrayRecordReader(path, options=LEAN), np.random.default_rng(0)
    while True:
        yield reader.read(rng.permutation(RECORDS)[:4096].tolist())


def in_torch(path: str) -> Iterator[Any]:
    import torch

    class Records(torch.utils.data.Dataset[Any]):
        reader = ArrayRecordReader(path, options=LEAN)

        def __len__(self) -> int:
            return RECORDS

        def __getitems__(self, indices: list[int]) -> list[Any]:
            return [decode(record).copy() for record in self.reader.read(indices)]

    while True:
        yield from torch.utils.data.DataLoader(Records(), BATCH, shuffle=True)


def in_grain(path: str) -> Iterator[Any]:
    import grain  # pyright: ignore[reportMissingImports]

    ds = grain.MapDataset.source(grain.sources.ArrayRecordDataSource([path]))
    return iter(ds.seed(0).shuffle().map(decode).repeat().batch(BATCH))


def loaders(folder: Path) -> None:
    path = write(folder / "b.array_record", RECORDS, 1024, "group_size:1")
    print(f"records/s: {RECORDS} of 1 KB in one shard, shuffled, decoded, stacked by {BATCH}")
    best = rate(raw(path), 4096)
    print(f"  {'raw read(4096 indices), not decoded':44} {best:9,.0f}")
    ds = Dataset(ArrayRecordSource(path)).shuffle().map(decode).repeat()
    fastest = 0.0
    for name, workers in {"Loader": 0, "Loader, Threads(1)": Threads(1)}.items():
        with Loader(ds, BATCH, workers=workers) as loader:
            ours = rate(iter(loader))
        fastest = max(fastest, ours)
        print(f"  {name:44} {ours:9,.0f}   {ours / best:.2f} of raw")
    for name, peer in {"torch DataLoader, __getitems__": in_torch, "Grain": in_grain}.items():
        try:
            theirs = rate(peer(path))
        except ImportError:
            continue
        print(f"  {name:44} {theirs:9,.0f}   the faster Loader is {fastest / theirs:.1f} x that")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        loaders(Path(name))
        readers(Path(name))
