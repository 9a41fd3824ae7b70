"""Parquet in any order: chunk and full shuffles beside sequential and naive reads, and over gs://.

Ratios compare what was timed in turns in one run; of each the median counts.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import ArrowIpcSource, Dataset, Loader, ParquetSource, Threads
from pipeline.sources import Storage
from pipeline.types import Source
from tests.emulators.fixtures import Gcs

ROWS, GROUP, LENGTH = 64_000, 1000, 256  # LENGTH tokens of 4 bytes: rows of 1 KiB
ROUNDS = 5
FAR = 128_000  # rows over gs://


def seconds(ways: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each way, all of them in turn each round."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            spent[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in spent.items()}


def tokens(rows: int, seed: int) -> pa.Table:
    """Rows of LENGTH tokens of a vocabulary of 50,000, and their number."""
    values = np.random.default_rng(seed).integers(0, 50_000, rows * LENGTH, np.int32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values), LENGTH)
    return pa.table({"tokens": lists, "id": np.arange(rows)})


def reading(dataset: Dataset, batch: int, rows: int = ROWS) -> Callable[[], None]:
    """A pass over the first rows, by batches of positions."""

    def read() -> None:
        source = dataset.components[0].source
        source.close()  # pyright: ignore[reportAttributeAccessIssue] # nothing kept from the pass before
        for start in range(0, rows, batch):
            dataset.read(np.arange(start, min(rows, start + batch)))

    return read


def naive(path: str, order: np.ndarray) -> None:
    """A row group for each row, as `Table[i]` over a Parquet file does it."""
    with pq.ParquetFile(path) as file:
        for i in order.tolist():
            table = file.read_row_group(i // GROUP).slice(i % GROUP, 1)
            table.column("tokens").to_numpy()


def orders(path: str) -> None:
    source = ParquetSource(path)
    plain, some = Dataset(source), Dataset(source).shuffle(chunks=16)
    print(f"{ROWS:,} rows of {LENGTH} int32 tokens, row groups of {GROUP:,}: rows/s")
    for batch in (128, 1024):
        spent = seconds({"sequential": reading(plain, batch), "chunks": reading(some, batch)})
        speed = {name: ROWS / t for name, t in spent.items()}
        print(
            f"  batch {batch:4}: sequential {speed['sequential']:,.0f}, shuffle(chunks=16) "
            f"{speed['chunks']:,.0f}: {speed['chunks'] / speed['sequential']:.2f} of it"
        )
    small = ParquetSource(path, cache_bytes=1 << 20)  # as if the data were far larger than it
    few = np.random.default_rng(0).permutation(ROWS)[:50]
    order = Dataset(small).shuffle()
    spent = seconds({"full": reading(order, 4096, 16_384), "naive": lambda: naive(path, few)})
    full, row = 16_384 / spent["full"], len(few) / spent["naive"]
    print(
        f"  full shuffle, 4,096 positions a read, nothing cached: {full:,.0f}; "
        f"a row group for each row: {row:,.0f}: {full / row:.0f} times that"
    )


def conversion(folder: Path) -> None:
    """What reading in order costs beside pyarrow's own decoding, column by column."""
    n = 32_000
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 2 * LENGTH, n)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = pa.array(rng.integers(0, 50_000, ends[-1], np.int32))
    columns = {
        "int64": pa.array(np.arange(n)),
        "tokens": tokens(n, 0).column("tokens").combine_chunks(),
        "ragged": pa.ListArray.from_arrays(ends, values),
        "text": pa.array([f"{i:0200}" for i in range(n)]),
        "dictionary": pa.array([f"label {i % 100}" for i in range(n)]),
    }
    print("in order, 1,000 rows a read: us a row, beside pyarrow's read_row_group alone")
    for name, column in columns.items():
        path = str(folder / f"column {name}.parquet")
        pq.write_table(pa.table({name: column}), path, row_group_size=GROUP)
        metadata = pq.read_metadata(path)

        def bare(path: str = path, metadata: pq.FileMetaData = metadata) -> None:
            for group in range(metadata.num_row_groups):
                with pq.ParquetFile(path, metadata=metadata) as file:
                    file.read_row_group(group, use_threads=False)

        spent = seconds({"ours": reading(Dataset(ParquetSource(path)), 1000, n), "bare": bare})
        ours, theirs = (spent[k] / n * 1e6 for k in ("ours", "bare"))
        print(f"  {name:10} {ours:6.2f}, bare {theirs:6.2f}: ratio {ours / theirs:.1f}")


def formats(folder: Path, path: str) -> None:
    """Random rows of Arrow IPC files, which need no decoding."""
    table = pq.read_table(path)
    arrow = str(folder / "a.arrow")
    with pa.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table, max_chunksize=GROUP)
    order = np.random.default_rng(0).permutation(ROWS)

    def read(source: Source, rows: int) -> None:
        for start in range(0, rows, 128):
            source.read(order[start : start + 128])

    mapped, packed = ArrowIpcSource(arrow), ParquetSource(path, cache_bytes=1 << 20)
    spent = seconds({"arrow": lambda: read(mapped, ROWS), "parquet": lambda: read(packed, 1280)})
    print(
        f"full shuffle, batches of 128: Arrow IPC, mapped {ROWS / spent['arrow']:,.0f} rows/s, "
        f"Parquet, nothing cached {1280 / spent['parquet']:,.0f}"
    )


def over_gs(folder: Path, latency: float, bandwidth: float) -> None:
    store = Gcs()
    try:
        urls = []
        for k in range(4):
            path = folder / f"{k}.parquet"
            pq.write_table(tokens(FAR // 4, k), path, row_group_size=GROUP)
            urls.append(store.upload(path))
        store.control(latency=latency, bandwidth=bandwidth)
        _epoch(urls, store.storage(), f"{latency * 1e3:.0f} ms, {bandwidth / 1e6:.0f} MB/s")
    finally:
        store.close()


def _epoch(urls: list[str], storage: Storage, weather: str) -> None:
    stats = storage.stats(urls)
    size = sum(stat.size for stat in stats)
    part = 1 << 20

    def ranges() -> None:
        for stat in stats:
            storage.read(
                [stat.range(a, min(a + part, stat.size)) for a in range(0, stat.size, part)]
            )

    def epoch(workers: int) -> Callable[[], None]:
        dataset = Dataset(ParquetSource(urls, storage=storage), seed=1).shuffle(chunks=16)

        def run() -> None:
            dataset.components[0].source.close()  # pyright: ignore[reportAttributeAccessIssue]
            with Loader(dataset, 128, workers=Threads(workers) if workers else 0) as loader:
                assert sum(len(batch["id"]) for batch in loader) == FAR

        return run

    counts = (0, 2, 4)
    spent = seconds({"ranges": ranges, **{str(n): epoch(n) for n in counts}}, 3)
    plain = size / spent["ranges"] / 1e6
    print(f"gs://, emulator of {weather}: plain ranges of 1 MiB {plain:.0f} MB/s; an epoch of")
    for n in counts:
        speed = size / spent[str(n)] / 1e6
        print(f"  shuffle(chunks=16), Threads({n}): {speed:4.0f} MB/s, {speed / plain:.2f} of it")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = str(folder / "tokens.parquet")
        pq.write_table(tokens(ROWS, 0), path, row_group_size=GROUP)
        if "gs" not in sys.argv[1:]:
            orders(path)
            conversion(folder)
            formats(folder, path)
        for latency, bandwidth in ((0.0, 0.0), (0.05, 50e6), (0.05, 100e6)):
            over_gs(folder, latency, bandwidth)


if __name__ == "__main__":
    main()
