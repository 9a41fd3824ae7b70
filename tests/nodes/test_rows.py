"""Rows on disk come back with their dtypes, structured ones and others' numbers included."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from pipeline import Dataset
from pipeline.block import Columns
from pipeline.nodes.cache.rows import decode, encode

INNER = np.dtype([("c", "f4"), ("d", "u1", (2,))])
DTYPES = [
    *(getattr(ml_dtypes, name) for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "int4")),
    np.dtype([("a", ">i2"), ("b", "S3"), ("t", "M8[us]")]),
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
    np.dtype({"names": ["a", "b"], "formats": ["i1", "i4"], "offsets": [0, 4], "itemsize": 12}),
    np.dtype([("nested", INNER), ("bf", ml_dtypes.bfloat16)]),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 0)])
def test_dtypes_come_back(dtype, shape):
    raw = np.random.default_rng(0).integers(0, 2, (*shape, np.dtype(dtype).itemsize), np.uint8)
    a = raw.view(dtype)[..., 0] if raw.size else np.zeros(shape, dtype)
    for values in (Columns({"x": a}), [{"x": row, "s": "text"} for row in a], list(a)):
        for places, back in decode(encode(values)):
            rows = back.rows() if isinstance(back, Columns) else back
            for i, row in zip(places.tolist(), rows, strict=True):
                found = row["x"] if isinstance(row, dict) else row
                assert found.dtype == a.dtype
                assert found.tobytes() == a[i].tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_cached_dataset_is_the_same(dtype, tmp_path):
    a = np.zeros((4, 2), dtype)
    plain = Dataset({"x": a})
    for _ in range(2):
        block = plain.cache(tmp_path).read([3, 0, 1])
        assert block.values.tree["x"].dtype == a.dtype  # pyright: ignore
