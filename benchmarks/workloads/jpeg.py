"""JPEG images: decoded and scaled to 224×224, by Pillow and where it is there by simplejpeg."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import STARTED, Workload, both, installed, rate
from benchmarks.peers import Fetch, Fetched, RandomAccess, grain_run, native, torch_run
from pipeline import ArrayRecordSource, Dataset, Loader, Threads

COUNT, WIDTH, HEIGHT, SIDE, BATCH, WARM = 512, 500, 375, 224, 32, 3


def with_pillow(record: bytes) -> Any:
    """uint8[224, 224, 3]; the decoder itself halves the size where that suffices."""
    from PIL import Image

    image = Image.open(io.BytesIO(record))
    image.draft("RGB", (SIDE, SIDE))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def with_simplejpeg(record: bytes) -> Any:
    """The same, decoded by libjpeg-turbo; Pillow scales."""
    import simplejpeg  # pyright: ignore[reportMissingImports]
    from PIL import Image

    pixels = simplejpeg.decode_jpeg(record, min_height=SIDE, min_width=SIDE, min_factor=1)
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def written(folder: Path, count: int = COUNT) -> str:
    """The path of a file of JPEG images: smooth shapes and some noise, as photographs have."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from PIL import Image

    path, rng = str(folder / "jpeg.array_record"), np.random.default_rng(0)
    writer = ArrayRecordWriter(path, "group_size:1,uncompressed")
    for _ in range(count):
        rough = rng.integers(0, 256, (HEIGHT // 25, WIDTH // 25, 3), np.uint8)
        image = Image.fromarray(rough).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        noise = rng.integers(0, 16, (HEIGHT, WIDTH, 1), np.uint8)
        out = io.BytesIO()
        Image.fromarray(np.asarray(image) // 2 + noise).save(out, "JPEG", quality=85)
        writer.write(out.getvalue())
    writer.close()
    return path


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Images a second; the limit is the function alone, into a batch that is used again."""
    if not installed("PIL"):
        return
    count = max(64, int(COUNT * size))
    path, most = written(folder, count), max(4, int(40 * size))
    decoders = {"Pillow": with_pillow}
    if installed("simplejpeg"):
        decoders["simplejpeg"] = with_simplejpeg
    for name, decoded in decoders.items():
        what = f"{WIDTH}×{HEIGHT} JPEG → {SIDE}×{SIDE}, {name} → batch {BATCH}"
        runs = _runs(path, count, decoded, most)
        aims = {("lockstep", "limit"): 0.95}
        yield Workload(f"JPEG, {name}", what, "images/s", runs, aims)


def _runs(
    path: str, count: int, decoded: Callable[[bytes], Any], most: int
) -> dict[str, Callable[[], float]]:
    def ours(workers: Any, most: int) -> float:
        ds = Dataset(ArrayRecordSource(path), seed=1).shuffle().map(decoded).repeat()
        with Loader(ds, BATCH, workers=workers) as loader:
            after = STARTED if workers == 2 else 0.0
            return rate(loader, BATCH, warm=WARM, most=most, after=after)

    def limit() -> float:
        records, batch = Dataset(path).head(64), np.empty((BATCH, SIDE, SIDE, 3), np.uint8)

        def batches() -> Iterator[Any]:
            for k in range(most + 2):
                for i in range(BATCH):
                    batch[i] = decoded(records[(k * BATCH + i) % len(records)])
                yield batch

        return rate(batches(), BATCH, warm=2, most=most)

    def bare() -> float:
        # the same with reading and fresh batches, which no loader can do without
        rng, fetch = np.random.default_rng(0), native(path)

        def batches() -> Iterator[Any]:
            for _ in range(most + WARM):
                batch = np.empty((BATCH, SIDE, SIDE, 3), np.uint8)
                for i, record in enumerate(fetch(rng.integers(0, count, BATCH).tolist())):
                    batch[i] = decoded(record)
                yield batch

        return rate(batches(), BATCH, warm=WARM, most=most)

    def fetching() -> Fetch:
        fetch = native(path)
        return lambda indices: [decoded(record) for record in fetch([i % count for i in indices])]

    def dataset() -> Any:
        import grain  # pyright: ignore[reportMissingImports]

        source = grain.MapDataset.source(RandomAccess(path, count))
        return source.shuffle(seed=1).map(decoded).repeat()

    rows = BATCH * (2 * most + 2048)
    two = {
        **torch_run(lambda: Fetched(rows, fetching), BATCH, 2, most=2 * most, warm=WARM),
        **grain_run(dataset, BATCH, 2, most=2 * most, warm=WARM),
    }
    return {
        "lockstep": lambda: ours(0, most),
        "lockstep 2 threads": lambda: ours(Threads(2), 2 * most),
        "lockstep 2 processes": lambda: ours(2, 2 * most),
        **{f"{peer}, 2 processes": run for peer, run in two.items()},
        "limit": limit,
        "read and decode alone": bare,
        "read and decode alone, 2 processes": lambda: both(bare),
    }
