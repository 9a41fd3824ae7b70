"""What a shuffle costs where storage is read in row groups, and how near it is to a full one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import Dataset, Loader, ParquetSource
from pipeline.debug.audit import Report, audit_dataset
from pipeline.sources.chunks import Chunk

ROWS, GROUP, BATCH = 1_000_000, 1_000, 256
TOKENS = 32  # int32 a row: a row group decodes to 136 kB
CACHED = 80  # row groups that the source may keep decoded: 8 % of the file

Order = Callable[[Dataset], Dataset]
ORDERS: dict[str, tuple[Order, int]] = {  # and how many batches are read
    "sequential": (lambda ds: ds, 512),
    **{f"chunks={w}": (lambda ds, w=w: ds.shuffle(chunks=w), 512) for w in (1, 4, 16, 64)},
    "window=16000": (lambda ds: ds.shuffle(window=16_000), 512),
    "full": (lambda ds: ds.shuffle(), 24),
}


class Counting(ParquetSource):
    """A Parquet source that counts the row groups it decodes."""

    decoded = 0

    def _decode(self, chunks: list[int]) -> list[Chunk]:
        self.decoded += len(chunks)
        return super()._decode(chunks)


def write(path: Path) -> None:
    tokens = pa.array(np.arange(ROWS * TOKENS, dtype=np.int32))
    table = {"id": np.arange(ROWS), "tokens": pa.FixedSizeListArray.from_arrays(tokens, TOKENS)}
    pq.write_table(pa.table(table), path, row_group_size=GROUP)


def read(path: Path, order: Order, batches: int) -> tuple[float, float, float]:
    """Row groups decoded a row, rows a second, and row groups that a batch's rows are of."""
    source = Counting(path, cache_bytes=CACHED * GROUP * (8 + 4 * TOKENS))
    loader = Loader(order(Dataset(source)), BATCH)
    groups = 0
    next(loader)
    source.decoded, start = 0, time.perf_counter()
    for _ in range(batches):
        groups += len(np.unique(next(loader)["id"] // GROUP))
    spent, rows = time.perf_counter() - start, batches * BATCH
    return source.decoded / rows, rows / spent, groups / batches


def value(report: Report, name: str) -> tuple[float, float]:
    figure = next(f for f in report.figures if f.name == name)
    return figure.value, figure.expected


def main() -> None:
    print(f"{ROWS} rows in row groups of {GROUP}, {CACHED} of them cached; batches of {BATCH}")
    print("parts: chi-square of 64 equal parts of the file in a batch, 1 if random, 256 if sorted")
    print("gaps: distance of neighbouring records in a batch, beside a true random order's")
    print("way: how far a record stands from its place, in epochs; random: 1/3")
    head = ("decoded/row", "x full", "rows/s", "groups", "parts", "gaps", "way", "weak figures")
    print(f"{'order':<14}" + "".join(f"{name:>13}" for name in head))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        write(path)
        found = {name: read(path, *how) for name, how in ORDERS.items()}
        for name, (order, _) in ORDERS.items():
            decoded, speed, groups = found[name]
            report = audit_dataset(order(Dataset(path)), batch=BATCH)
            gaps, random = value(report, "mixing: gaps in a batch (log2)")
            columns = (
                f"{decoded:.5f}",
                f"1/{found['full'][0] / decoded:.0f}",
                f"{speed:,.0f}",
                f"{groups:.1f}",
                f"{value(report, 'residues: 64 parts of n')[0]:.2f}",
                f"{2 ** (gaps - random):.1%}",
                f"{value(report, 'mixing: way from its place')[0]:.3f}",
                f"{len(report.failed)} of {len(report.figures)}",
            )
            print(f"{name:<14}" + "".join(f"{column:>13}" for column in columns))


if __name__ == "__main__":
    main()
