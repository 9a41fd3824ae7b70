"""Arrow tables with every kind of column that tabular sources tell apart, and damage to files."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pyarrow as pa


def table(start: int, n: int) -> pa.Table:
    """Rows start to start + n of one endless table."""
    ids = range(start, start + n)
    return pa.table(
        {
            "id": pa.array(ids, pa.int32()),
            "x": pa.array([None if i % 3 else i / 2 for i in ids], pa.float32()),
            "text": pa.array([text(i) for i in ids], pa.string()),
            "kind": pa.array([f"k{i % 3}" for i in ids], pa.dictionary(pa.int8(), pa.string())),
            "vector": pa.array([[i, i + 1] for i in ids], pa.list_(pa.int16(), 2)),
            "tokens": pa.array([tokens(i) for i in ids], pa.list_(pa.int64())),
            "words": pa.array([["a", None] * (i % 3) for i in ids], pa.list_(pa.string())),
            "deep": pa.array(
                [{"flag": i % 2 == 0, "name": b"%d\0" % i} for i in ids],
                pa.struct([("flag", pa.bool_()), ("name", pa.binary())]),
            ),
        }
    )


def text(i: int) -> str | None:
    return None if i % 5 == 1 else f"t{i}\0"


def tokens(i: int) -> list[int] | None:
    return None if i % 7 == 6 else list(range(i % 4))


def check_rows(source: Any, wanted: Any) -> None:
    """That rows of `table(0, n)` come as they should, in the order asked."""
    got = source.read(np.asarray(wanted, np.int64)).tree
    ids = [int(i) for i in wanted]
    assert got["id"].tolist() == ids
    assert got["text"].tolist() == [text(i) for i in ids]
    assert got["kind"].tolist() == [f"k{i % 3}" for i in ids]
    assert got["vector"].tolist() == [[i, i + 1] for i in ids]
    assert [None if t is None else t.tolist() for t in got["tokens"]] == [tokens(i) for i in ids]
    assert got["words"].tolist() == [["a", None] * (i % 3) for i in ids]
    assert got["deep"]["name"].tolist() == [b"%d\0" % i for i in ids]
    assert got["deep"]["flag"].tolist() == [i % 2 == 0 for i in ids]
    halves = [np.nan if i % 3 else i / 2 for i in ids]
    np.testing.assert_array_equal(got["x"], np.array(halves, np.float32))


def damage(path: str, at: int, n: int = 8) -> None:
    """Flip n bytes of a file, which keeps its time as on a disk that fails."""
    times = os.stat(path)
    with open(path, "r+b") as f:
        f.seek(at)
        old = f.read(n)
        f.seek(at)
        f.write(bytes(b ^ 0xFF for b in old))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
