"""Records of tokens: read at random and decoded one by one, serial, by threads, by processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import STARTED, Workload, both, by_two_threads, rate
from benchmarks.peers import Fetch, Fetched, RandomAccess, grain_run, native, torch_run
from pipeline import ArrayRecordSource, Dataset, Loader, Threads

BYTES, BATCH = 1024, 128
Runs = dict[str, Callable[[], float]]


def _decoded(record: bytes) -> Any:
    return np.frombuffer(record, np.uint16)


def written(folder: Path, count: int) -> str:
    """The path of a file of `count` records of random bytes."""
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
    path, most = written(folder, count), max(20, int(1000 * size))

    def ours(workers: Any, after: float = 0.0) -> float:
        ds = Dataset(ArrayRecordSource(path), seed=1).shuffle().map(_decoded)
        with Loader(ds.repeat(), BATCH, workers=workers) as loader:
            return rate(loader, BATCH, warm=20, most=most, after=after)

    def limit() -> float:
        from array_record.python.array_record_module import ArrayRecordReader

        reader = ArrayRecordReader(path, options="readahead_buffer_size:0,max_parallelism:0")
        rng = np.random.default_rng(0)
        asked = [rng.choice(count, 4096, replace=False).tolist() for _ in range(max(3, most // 32))]
        found = rate((reader.read(some) for some in asked), 4096, warm=1, most=len(asked))
        reader.close()
        return found

    def bare() -> float:
        # the least that reads records of a shuffle one by one, each checked, and calls a function
        rng, fetch = np.random.default_rng(0), native(path)

        def batches() -> Iterator[Any]:
            for _ in range(most + 20):
                asked = rng.integers(0, count, BATCH).tolist()
                yield np.stack(list(map(_decoded, fetch(asked))))

        return rate(batches(), BATCH, warm=20, most=most)

    what = f"{count:,} records of 1 KiB → shuffle → decode → batch {BATCH}"
    alone = "read, decode and stack alone"
    serial: Runs = {"lockstep": lambda: ours(0), **_peers(path, count, 0, most)}
    serial |= {"limit": limit, alone: bare}
    # within seconds all that is cold would be warm: there, starting counts
    for name, prepare, after in (("", _warm, STARTED), (", cold", _cold, 0.0)):
        aims: dict[tuple[str, str], float] = {("lockstep", "limit"): 0.6}
        if name:
            aims = {("lockstep", "torch"): 2.0}
        runs = {of: partial(_prepared, path, prepare, run) for of, run in serial.items()}
        yield Workload(f"tokens{name}", f"{what}, serial", "records/s", runs, aims)
        two: Runs = {"lockstep": partial(ours, 2, after), **_peers(path, count, 2, most, after)}
        two[alone] = lambda: both(bare)
        runs = {of: partial(_prepared, path, prepare, run) for of, run in two.items()}
        aims = {("lockstep", "torch"): 2.0} if name else {}
        yield Workload(
            f"tokens, 2 processes{name}", f"{what}, 2 processes", "records/s", runs, aims
        )
    threads: Runs = {"lockstep 2 threads": lambda: ours(Threads(2)), "serial": lambda: ours(0)}
    threads |= {alone: bare, f"{alone}, 2 threads": lambda: by_two_threads(bare)}
    aims = {("lockstep 2 threads", "serial"): 1.0}
    yield Workload("tokens, threads", f"{what}, warm", "records/s", threads, aims)


def _prepared(path: str, prepare: Callable[[str], None], run: Callable[[], float]) -> float:
    prepare(path)
    return run()


def _peers(path: str, count: int, workers: int, most: int, after: float = 0.0) -> Runs:
    def rows() -> Fetched:
        passes = 16 if after else 1  # records come again, so that they last
        return Fetched(passes * count, lambda: _decoding(native(path), count))

    def dataset() -> Any:
        import grain  # pyright: ignore[reportMissingImports]

        source = grain.MapDataset.source(RandomAccess(path, count))
        return source.shuffle(seed=1).map(_decoded).repeat()

    return {
        **torch_run(rows, BATCH, workers, most=most, after=after),
        **grain_run(dataset, BATCH, workers, most=most, after=after),
    }


def _decoding(fetch: Fetch, count: int) -> Fetch:
    def decoded(indices: list[int]) -> list[Any]:
        return [_decoded(record).copy() for record in fetch([i % count for i in indices])]

    return decoded
