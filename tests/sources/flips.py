"""Flips each bit of a small Parquet file's footer and uses the file; run as a process of its own.

    python -m tests.sources.flips FOLDER FIRST END

Prints the number of each bit before it is tried, so that the parent knows which one killed it.
"""

from __future__ import annotations

import io
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.sources.parquet import ParquetSource


def small_file() -> tuple[bytes, int]:
    """A file, and the number of bytes of its footer."""
    made = io.BytesIO()
    rows = pa.table({"i": [1, 2, 3], "s": ["a", "b", None]})
    pq.write_table(rows, made, compression="zstd", row_group_size=2, store_schema=False)
    data = made.getvalue()
    return data, int.from_bytes(data[-8:-4], "little") + 8


def use(path: str) -> None:
    """Open, show and read a file; errors of ours that name it are fine."""
    try:
        source = ParquetSource(path)
        source.layout()
        for i in range(min(len(source), 5)):
            _read(source, i)
    except SourceError as e:
        _check_named(path, e)


def _read(source: ParquetSource, i: int) -> None:
    try:
        source.read(np.array([i]))
    except SourceError as e:
        _check_named(source.files.paths[0], e)


def _check_named(path: str, error: SourceError) -> None:
    if path not in str(error):
        raise AssertionError(f"this error does not name its file: {error}")


def main(folder: str, first: int, end: int) -> None:
    whole, footer = small_file()
    path = f"{folder}/flipped.parquet"
    for bit in range(first, end):
        print(bit, flush=True)
        data = bytearray(whole)
        data[len(data) - footer + bit // 8] ^= 1 << bit % 8
        with open(path, "wb") as f:
            f.write(data)
        use(path)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
