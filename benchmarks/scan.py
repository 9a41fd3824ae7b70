"""What a scan costs, and what it gains: filters and packs by scans beside those that count rows.

Texts are those of the harness's corpus, over and over, in a Parquet file; documents are log-normal
ones of about 500 tokens, packed into rows of 2,048. What processes take to start is counted in.
Filters keep one row of ten. A far seek is that of a fresh loader, the median of several. All in one
run, each pair in turn.

    python benchmarks/scan.py
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import Dataset, Loader, ParquetSource, Processes, Scanned, scan

CORPUS = Path(__file__).parents[1] / "harness" / "data" / "sotu.parquet"
TEXTS, ROWS, DOCUMENTS, LENGTH, BATCH, RUNS = 40_000, 300_000, 1 << 14, 2048, 64, 3


def words(row: Any) -> int:
    return len(set(re.findall(r"\w+", row["text"].lower())))


def tenth(row: Any) -> bool:
    return bool(row["x"] % 10 == 0)


def seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def medians(*calls: Callable[[], Any]) -> list[float]:
    """Seconds of each, the median of several runs in turn."""
    runs = [[seconds(call) for call in calls] for _ in range(RUNS)]
    return [statistics.median(found) for found in zip(*runs, strict=True)]


def scans(folder: Path) -> None:
    """Rows a second of a scan, alone and with two processes."""
    source = ParquetSource(str(CORPUS), columns=["text"])
    texts = [row["text"][:4000] for row in Dataset(source).read(np.arange(len(source))).rows()]
    table = pa.table({"text": [texts[i % len(texts)] for i in range(TEXTS)]})
    pq.write_table(table, folder / "texts.parquet", row_group_size=1000)
    ds, made = Dataset(folder / "texts.parquet"), iter(range(99))

    def scanned(workers: Any) -> Callable[[], Scanned]:
        def make() -> Scanned:
            path = folder / f"words-{next(made)}"
            return scan(ds, words, path=path, workers=workers, progress=False)

        return make

    ways = (lambda: [words(row) for row in ds], scanned(0), scanned(Processes(2)))
    plain, serial, two = medians(*ways)
    print(f"scan of {TEXTS:,} texts, counting their different words: rows/s")
    print(f"  a loop over the dataset {TEXTS / plain:>10,.0f}")
    print(f"  scan, serial            {TEXTS / serial:>10,.0f}  ({plain / serial:.2f} x the loop)")
    print(f"  scan, two processes     {TEXTS / two:>10,.0f}  ({serial / two:.2f} x serial)")


def filters(folder: Path) -> None:
    """Loader rows a second and seconds to a far step: kept by a scan, and by a function."""
    ds = Dataset({"x": np.arange(ROWS), "y": np.zeros((ROWS, 16), np.float32)})
    flags = scan(ds, tenth, path=folder / "tenth", workers=0, progress=False)
    kept, counted = ds.filter(flags).shuffle(), ds.shuffle().filter(tenth)
    far = ROWS // 10 // BATCH - 1

    def epoch(of: Dataset) -> Callable[[], Any]:
        return lambda: sum(len(batch["x"]) for batch in Loader(of, BATCH))

    def seek(of: Dataset) -> Callable[[], Any]:
        return lambda: Loader(of, BATCH).seek(far)

    by_scan, by_function = medians(epoch(kept), epoch(counted))
    near, long = medians(seek(kept), seek(counted))
    print(f"\nfilter of {ROWS:,} rows to a tenth: batches of {BATCH}")
    print(f"{'':>14}{'rows/s':>12}{'seek to step ' + str(far):>20}")
    print(f"  by a scan   {len(kept) / by_scan:>12,.0f}{near * 1e3:>17.2f} ms")
    print(f"  by function {len(kept) / by_function:>12,.0f}{long * 1e3:>17.2f} ms")
    print(f"  ratio       {by_function / by_scan:>12.1f}{long / near:>20,.0f}")


def packs(folder: Path) -> None:
    """Packed rows a second and the share of padding: by scanned lengths, and in blocks."""
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(np.log(500) - 0.5, 1.0, DOCUMENTS).astype(np.int64) + 1
    tokens = rng.integers(1, 50_000, int(sizes.sum()), dtype=np.int32)
    ds = Dataset(np.split(tokens, np.cumsum(sizes)[:-1]))
    lengths = scan(ds, len, path=folder / "lengths", workers=0, progress=False)
    print(f"\npack of {DOCUMENTS:,} log-normal documents into rows of {LENGTH:,}")
    print(f"{'':>24}{'rows/s':>10}{'padding':>10}")
    for how in ("split", "best_fit"):
        options: dict[str, Any] = {"how": how}
        ways = {
            f"{how}, by a scan": ds.pack(LENGTH, lengths=lengths, **options),
            f"{how}, blocks of 256": ds.pack(LENGTH, block=256, **options),
        }
        count = {name: sum(len(b["tokens"]) for b in Loader(p, BATCH)) for name, p in ways.items()}

        def epoch(of: Dataset) -> Callable[[], Any]:
            return lambda: [None for _ in Loader(of, BATCH)]

        times = medians(*map(epoch, ways.values()))
        rates = [rows / took for rows, took in zip(count.values(), times, strict=True)]
        for (name, rows), rate in zip(count.items(), rates, strict=True):
            print(f"  {name:<22}{rate:>10,.0f}{1 - len(tokens) / (rows * LENGTH):>10.3%}")
        print(f"  {'ratio':<22}{rates[0] / rates[1]:>10.2f}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for part in (scans, filters, packs):
            part(Path(folder))


if __name__ == "__main__":
    main()
