"""Bucket: the same rows, those of similar length together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Dataset, Loader, pad_to, padding_share
from pipeline.debug.conformance import check_transform
from pipeline.errors import ChainError
from pipeline.transforms import Bucket

from .making import SITE, block_of, keys

EDGES = st.lists(st.integers(0, 12), min_size=1, max_size=4, unique=True).map(sorted)


@given(st.lists(st.integers(0, 15), max_size=30), EDGES)
def test_buckets_come_as_their_first_row_does(sizes, edges):
    def bucket(i: int) -> int:
        return sum(sizes[i] > edge for edge in edges)

    rows = [{"x": np.zeros(n), "n": n} for n in sizes]
    first = list(dict.fromkeys(bucket(i) for i in range(len(sizes))))
    expected = sorted(range(len(sizes)), key=lambda i: (first.index(bucket(i)), i))
    for key in ("x", lambda row: row["n"]):
        out = Bucket(key, "bucket", edges).apply(block_of(rows, 5), SITE)
        assert [row["n"] for row in out.rows()] == [sizes[i] for i in expected]
        assert keys(out) == [(0, 5 + i, ()) for i in expected]


def test_buckets_conform():
    rows = block_of([{"x": np.zeros(n)} for n in (3, 0, 9, 4, 4)])
    check_transform(Bucket("x", "bucket", [3, 6]), rows)
    check_transform(Bucket(lambda r: -r["x"].shape[0], "bucket", [-4.5]), rows)
    check_transform(Bucket("x", "bucket", [3, 6]), block_of({"x": np.zeros((5, 2))}))


def test_batches_hold_one_bucket_but_for_the_borders_and_pad_less():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 65, 2000)
    ds = Dataset({"n": sizes}, seed=1).shuffle().map(lambda r: {"x": np.ones(r["n"], np.int8)})
    edges = [16, 32, 48, 64]
    bucketed = ds.bucket("x", edges, block=1000)
    batches = list(Loader(bucketed, 20, collate=pad_to(multiple=16)))
    mixed = sum(len(np.unique(np.searchsorted(edges, b["x_mask"].sum(1)))) > 1 for b in batches)
    assert mixed <= 2 * len(edges)
    plain = np.mean([padding_share(b) for b in Loader(ds, 20, collate=pad_to(multiple=16))])
    assert np.mean([padding_share(b) for b in batches]) < 0.6 * plain
    assert sorted(int(n) for b in batches for n in b["x_mask"].sum(1)) == sorted(sizes)


@pytest.mark.parametrize("edges", [[], [3, 3], [4, 2], "ab", 3, [[1]], [float("nan")]])
def test_boundaries_rise(edges: Any):
    with pytest.raises(ChainError, match="give rising numbers"):
        Bucket("x", "bucket", edges)


def test_what_has_no_length_is_named():
    for rows, key, message in (
        ([{"y": [1]}], "x", r"S wants the length of the field 'x': rows have \['y'\]"),
        ([{"x": 3}], "x", "Name a field that has one"),
        ([3], "x", "rows have int"),
        ([{"x": 3}], lambda r: None, "its key returned None, not a number"),
        ([{"x": 3}], lambda r: float("nan"), "its key returned nan, not a number"),
        ([{"x": 3}], lambda r: True, "its key returned True, not a number"),
    ):
        with pytest.raises(ChainError, match=message) as caught:
            Bucket(key, "bucket", [2]).apply(block_of(rows), SITE)
        assert "record 0 of Columns" in caught.value.__notes__[0]
    with pytest.raises(ChainError, match="block=0"):
        Bucket("x", "bucket", [2], block=0)
    with pytest.raises(ChainError, match="give a function"):
        Dataset([1]).bucket(3, [2])  # pyright: ignore[reportArgumentType]


def test_all_options_are_in_the_fingerprint():
    stages = [
        Bucket("x", "bucket", [2]),
        Bucket("y", "bucket", [2]),
        Bucket(len, "bucket", [2]),
        Bucket("x", "bucket", [2, 3]),
        Bucket("x", "bucket", [2.5]),
        Bucket("x", "bucket", [2], block=9),
        Bucket("x", "other", [2]),
    ]
    assert len({s.fingerprint() for s in stages}) == len(stages)
    assert Bucket("x", "bucket", list(np.array([2]))).fingerprint() == stages[0].fingerprint()
