"""Images: crop, flip and normalise, serial and through two processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import STARTED, Workload, both, rate
from benchmarks.peers import Fetch, Fetched, RandomAccess, grain_run, native, torch_run
from pipeline import ArrayRecordSource, Dataset, Loader

COUNT, SIDE, CROP, BATCH = 4096, 64, 56, 64
MEAN, DEVIATION = np.array([0.49, 0.48, 0.45], np.float32), np.array([0.25, 0.24, 0.26], np.float32)


def augmented(record: bytes, rng: np.random.Generator) -> dict[str, Any]:
    """Random crop, flip, float32 with the mean and deviation of each channel."""
    image = np.frombuffer(record, np.uint8).reshape(SIDE, SIDE, 3)
    top, left = rng.integers(0, SIDE - CROP + 1, 2)
    image = image[top : top + CROP, left : left + CROP]
    if rng.random() < 0.5:
        image = image[:, ::-1]
    return {"image": (image.astype(np.float32) / 255 - MEAN) / DEVIATION}


def written(folder: Path) -> str:
    """The path of a file of random images."""
    from array_record.python.array_record_module import ArrayRecordWriter

    path, rng = str(folder / "images.array_record"), np.random.default_rng(0)
    writer = ArrayRecordWriter(path, "group_size:1,uncompressed")
    for _ in range(COUNT):
        writer.write(rng.integers(0, 256, SIDE * SIDE * 3, dtype=np.uint8).tobytes())
    writer.close()
    return path


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Images a second; the limit is the function alone, into a batch that is used again."""
    path, most = written(folder), max(8, int(150 * size))
    records = Dataset(path).head(512)

    def ours(workers: Any, most: int) -> float:
        ds = Dataset(ArrayRecordSource(path), seed=1).shuffle().random_map(augmented).repeat()
        with Loader(ds, BATCH, workers=workers) as loader:
            after = STARTED if workers else 0.0
            return rate(loader, BATCH, warm=max(8, most // 4), most=most, after=after)

    def limit() -> float:
        rng, batch = np.random.default_rng(0), np.empty((BATCH, CROP, CROP, 3), np.float32)

        def batches() -> Iterator[Any]:
            for k in range(most + 8):
                for i in range(BATCH):
                    batch[i] = augmented(records[(k * BATCH + i) % len(records)], rng)["image"]
                yield batch

        return rate(batches(), BATCH, warm=8, most=most)

    def bare() -> float:
        # with reading, fresh batches, and a generator of its own for each row, without which an
        # image would depend on those read before it
        rng, fetch = np.random.default_rng(0), native(path)

        def crop(record: bytes, number: int) -> Any:
            return augmented(record, np.random.Generator(np.random.Philox(key=number)))["image"]

        def batches() -> Iterator[Any]:
            for _ in range(most + 8):
                batch = np.empty((BATCH, CROP, CROP, 3), np.float32)
                numbers = rng.integers(0, COUNT, BATCH).tolist()
                for i, record in enumerate(fetch(numbers)):
                    batch[i] = crop(record, numbers[i])
                yield batch

        return rate(batches(), BATCH, warm=8, most=most)

    what = "64×64×3 bytes → random crop of 56 → flip → normalise → batch 64"
    serial = {"lockstep": lambda: ours(0, most), **_peers(path, 0, most), "limit": limit}
    serial["read, generators and function alone"] = bare
    aims = {("lockstep", "limit"): 0.95}
    yield Workload("images", f"{what}, serial", "images/s", serial, aims)
    two = {
        "lockstep": lambda: ours(2, 2 * most),
        "lockstep auto": lambda: ours("auto", 2 * most),
        **_peers(path, 2, 2 * most),
        "limit": lambda: both(limit),
        "read, generators and function alone": lambda: both(bare),
    }
    aims = {("lockstep", "torch"): 2.4, ("lockstep", "limit"): 0.9}
    yield Workload("images, 2 processes", f"{what}, 2 processes", "images/s", two, aims)


def fetching(path: str) -> Fetch:
    """Augmented images by number, for torch: a generator a call, records many at a time."""
    fetch = native(path)

    def fetched(indices: list[int]) -> list[Any]:
        rng = np.random.default_rng(indices[0])
        return [augmented(row, rng)["image"] for row in fetch([i % COUNT for i in indices])]

    return fetched


def _peers(path: str, workers: int, most: int) -> dict[str, Callable[[], float]]:
    def dataset() -> Any:
        import grain  # pyright: ignore[reportMissingImports]

        source = grain.MapDataset.source(RandomAccess(path, COUNT))
        return source.shuffle(seed=1).random_map(augmented, seed=1).repeat()

    rows = BATCH * (most + 2048)
    return {
        **torch_run(lambda: Fetched(rows, lambda: fetching(path)), BATCH, workers, most=most),
        **grain_run(dataset, BATCH, workers, most=most),
    }
