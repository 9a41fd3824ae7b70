"""What workers bring: images through processes, bytes through shared memory, the first batch.

Every line holds medians of several runs, taken in turn; ratios compare figures of one run. grain
and torch join where they are installed.

    python benchmarks/workers.py
"""

from __future__ import annotations

import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import ArrayRecordSource, Dataset, Loader, Processes, Threads

IMAGES, EPOCHS, SIDE, CROP, BATCH, RUNS = 8192, 4, 64, 56, 128, 5


def write_images(folder: Path) -> str:
    from array_record.python.array_record_module import ArrayRecordWriter

    rng = np.random.default_rng(0)
    path = str(folder / "images.array_record")
    writer = ArrayRecordWriter(path, "group_size:1")
    for _ in range(IMAGES):
        writer.write(rng.integers(0, 256, SIDE * SIDE * 3, dtype=np.uint8).tobytes())
    writer.close()
    return path


def augment(record: bytes, rng: np.random.Generator) -> Any:
    """Random crop, flip, float32 around 0: some 32 µs in NumPy."""
    image = np.frombuffer(record, np.uint8).reshape(SIDE, SIDE, 3)
    top, left = rng.integers(0, SIDE - CROP + 1, 2)
    image = image[top : top + CROP, left : left + CROP]
    if rng.random() < 0.5:
        image = image[:, ::-1]
    return {"image": (image.astype(np.float32) - 127.5) * (1 / 127.5)}


def images_a_second(batches: Iterable[Any], warm: int) -> float:
    """The rate once `warm` batches are there."""
    n, started = 0, 0.0
    for i, batch in enumerate(batches):
        n += len(batch["image"]) if i >= warm else 0
        if i == warm - 1:
            started = time.perf_counter()
    return n / (time.perf_counter() - started)


def ours(path: str, workers: Any) -> float:
    ds = Dataset(ArrayRecordSource(path)).shuffle().random_map(augment).repeat(EPOCHS)
    with Loader(ds, BATCH, workers=workers, remainder="drop") as loader:
        return images_a_second(loader, 8)


def with_torch(path: str, workers: int, together: bool) -> float:
    """Through array_record's own reader: record by record, or a batch's records at once."""
    import torch.utils.data as torch_data
    from array_record.python.array_record_module import ArrayRecordReader

    @functools.cache
    def reader(process: int) -> Any:  # its threads do not outlive a fork
        return ArrayRecordReader(path, options="readahead_buffer_size:0,max_parallelism:0")

    class Images(torch_data.Dataset):
        def __len__(self) -> int:
            return IMAGES

        def __getitem__(self, i: int) -> Any:
            mine = reader(os.getpid())
            mine.seek(i)
            return augment(mine.read(), np.random.default_rng(i))

    class Together(Images):
        def __getitems__(self, indices: list[int]) -> list[Any]:
            records = reader(os.getpid()).read(indices)
            return [
                augment(r, np.random.default_rng(i)) for r, i in zip(records, indices, strict=True)
            ]

    images = Together() if together else Images()
    loader = torch_data.DataLoader(images, BATCH, shuffle=True, num_workers=workers, drop_last=True)
    return images_a_second(loader, 8)


def with_grain(path: str, workers: int) -> float:
    import grain  # pyright: ignore[reportMissingImports]
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # grain reads flags of its own

    class Augment(grain.transforms.RandomMap):
        def random_map(self, element: Any, rng: np.random.Generator) -> Any:
            return augment(element, rng)

    ds = grain.MapDataset.source(grain.sources.ArrayRecordDataSource([path])).seed(0).shuffle()
    ds = ds.random_map(Augment()).batch(BATCH, drop_remainder=True).to_iter_dataset()
    if workers:
        ds = ds.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers=workers))
    return images_a_second(ds, 8)


def copied() -> float:
    """MB/s of memcpy between two arrays of 32 MiB."""
    a, b = np.ones(32 << 20, np.uint8), np.zeros(32 << 20, np.uint8)
    started = time.perf_counter()
    for _ in range(20):
        np.copyto(b, a)
    return 20 * a.nbytes / (time.perf_counter() - started) / 1e6


def transported() -> float:
    """MB/s of batches of 32 MiB that a process makes by one copy, seen by the parent."""
    rows = np.ones((8, 4 << 20), np.uint8)
    ds = Dataset({"i": np.arange(8)}).map(_wide(rows), batched=True).repeat()
    with Loader(ds, 8, workers=Processes(1), ahead="256MiB") as loader:
        for _ in range(12):  # until the arena's pages are warm
            next(loader)
        started = time.perf_counter()
        for _ in range(30):
            next(loader)
        return 30 * rows.nbytes / (time.perf_counter() - started) / 1e6


def _wide(rows: np.ndarray) -> Callable[[Any], Any]:
    return lambda batch: {"x": rows if len(batch["i"]) == 8 else rows[batch["i"]]}


def first_batch(workers: Any) -> float:
    """Seconds from nothing to the first batch of a light dataset."""
    ds = Dataset({"x": np.arange(100_000)}).map(lambda row: {"x": row["x"] + 1})
    started = time.perf_counter()
    with Loader(ds, BATCH, workers=workers) as loader:
        next(loader)
        return time.perf_counter() - started


def first_batch_of_torch() -> float:
    """The same through torch's DataLoader with two forked workers."""
    import torch.utils.data as torch_data

    class Light(torch_data.Dataset):
        def __len__(self) -> int:
            return 100_000

        def __getitem__(self, i: int) -> Any:
            return {"x": i + 1}

    started = time.perf_counter()
    next(iter(torch_data.DataLoader(Light(), BATCH, num_workers=2)))
    return time.perf_counter() - started


def first_batch_of_grain() -> float:
    """The same through Grain with two worker processes."""
    import grain  # pyright: ignore[reportMissingImports]
    from absl import flags

    flags.FLAGS.mark_as_parsed()
    started = time.perf_counter()
    ds = grain.MapDataset.range(100_000).map(_one_more).batch(BATCH).to_iter_dataset()
    options = grain.multiprocessing.MultiprocessingOptions(num_workers=2)
    next(iter(ds.mp_prefetch(options)))
    return time.perf_counter() - started


def _one_more(i: int) -> dict[str, int]:
    return {"x": i + 1}


def transported_by_torch() -> float:
    """MB/s of the same batches from one worker of torch's DataLoader."""
    import torch
    import torch.utils.data as torch_data

    rows = torch.ones((8, 4 << 20), dtype=torch.uint8)

    class Wide(torch_data.IterableDataset):
        def __iter__(self) -> Any:
            return iter(lambda: {"x": rows.clone()}, None)

    batches = iter(torch_data.DataLoader(Wide(), None, num_workers=1))
    for _ in range(4):
        next(batches)
    started = time.perf_counter()
    for _ in range(20):
        next(batches)
    return 20 * rows.numel() / (time.perf_counter() - started) / 1e6


def parents_cpu(path: str) -> float:
    """Seconds of CPU that the parent spends on a batch which two processes make."""
    ds = Dataset(ArrayRecordSource(path)).shuffle().random_map(augment)
    with Loader(ds, BATCH, workers=2, remainder="drop") as loader:
        next(loader)
        before = time.process_time()
        n = sum(1 for _ in loader)
        return (time.process_time() - before) / n


def measured(kinds: dict[str, Callable[[], float]], runs: int = RUNS) -> dict[str, float]:
    """Medians, the kinds taken in turn so that a slow minute hits all of them."""
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(runs):
        for name, measure in kinds.items():
            found[name].append(measure())
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_images(Path(folder))
        kinds: dict[str, Callable[[], float]] = {
            "serial": lambda: ours(path, 0),
            "2 threads": lambda: ours(path, Threads(2)),
            "2 processes": lambda: ours(path, Processes(2)),
        }
        if find_spec("torch"):
            kinds["torch"] = lambda: with_torch(path, 0, together=False)
            kinds["torch, 2 workers"] = lambda: with_torch(path, 2, together=False)
            kinds["torch, __getitems__"] = lambda: with_torch(path, 0, together=True)
            kinds["… and 2 workers"] = lambda: with_torch(path, 2, together=True)
        if find_spec("grain"):
            kinds["grain, 2 workers"] = lambda: with_grain(path, 2)
        rates = measured(kinds)
        print(f"images/s on {os.cpu_count()} cores, batches of {BATCH}")
        for name, rate in rates.items():
            print(f"  {name:<20} {rate:>9,.0f}   {rate / rates['serial']:.2f} of serial")
        cpu = measured({"cpu": lambda: parents_cpu(path)})["cpu"]
        print(f"parent's CPU a batch: {cpu * 1e3:.2f} ms")
    ways = {"memcpy": copied, "transport": transported}
    firsts = {"serial": lambda: first_batch(0), "2 processes": lambda: first_batch(2)}
    if find_spec("torch"):
        ways["torch"], firsts["torch, 2 workers"] = transported_by_torch, first_batch_of_torch
    if find_spec("grain"):
        firsts["grain, 2 workers"] = first_batch_of_grain
    speeds = measured(ways)
    print("32 MiB batches")
    for name, speed in speeds.items():
        print(f"  {name:<18} {speed:>9,.0f} MB/s   {speed / speeds['memcpy']:.2f} of memcpy")
    first = measured(firsts)
    print("first batch: " + ", ".join(f"{k} {v:.3f} s" for k, v in first.items()))


if __name__ == "__main__":
    main()
