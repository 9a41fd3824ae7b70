"""Exact evaluation: each record once over any number of hosts, in equal steps of equal shapes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Dataset, Loader, pad_to
from tests.examples import examples

BATCH = 12  # divides over 1, 2, 3 and 4 hosts


def once(ds: Dataset, hosts: int, **options: Any) -> list[list[Any]]:
    """Each host's batches of one pass."""
    return [
        list(Loader(ds, BATCH, host=h, hosts=hosts, remainder="pad", **options).once())
        for h in range(hosts)
    ]


def check(parts: list[list[Any]], hosts: int) -> list[Any]:
    """Batches that are alike on all hosts; their real rows' ids."""
    assert len({len(batches) for batches in parts}) == 1
    shapes = {
        tuple((k, v.shape, str(v.dtype)) for k, v in b.items())
        for batches in parts
        for b in batches
    }
    assert len(shapes) <= 1
    for name, shape, _ in next(iter(shapes), ()):
        assert shape[0] == BATCH // hosts, name
    return [i for batches in parts for b in batches for i in b["id"][b["mask"]].tolist()]


@pytest.mark.parametrize("hosts", [1, 2, 3, 4])
@examples(6)
@given(n=st.integers(1, 80), shuffled=st.booleans())
def test_indexed_rows_come_once(hosts, n, shuffled):
    ds = Dataset({"id": np.arange(n)})
    parts = once(ds.shuffle() if shuffled else ds, hosts)
    assert sorted(check(parts, hosts)) == list(range(n))
    assert len(parts[0]) == -(-n // BATCH)


@pytest.mark.parametrize("hosts", [1, 2, 3, 4])
@examples(6)
@given(n=st.integers(1, 80), block=st.sampled_from([1, 5, 64]))
def test_counted_rows_come_once(hosts, n, block):
    ds = Dataset({"id": np.arange(n)}).shuffle().filter(lambda r: bool(r["id"] % 3), block=block)
    found = check(once(ds.lanes(BATCH), hosts), hosts)
    assert sorted(found) == [i for i in range(n) if i % 3]


@pytest.mark.parametrize("hosts", [1, 2, 3, 4])
@examples(6)
@given(n=st.integers(1, 60))
def test_every_token_comes_once_packed_or_padded(hosts, n):
    docs = Dataset({"id": np.arange(n)}).map(lambda r: {"id": r["id"], "t": np.ones(r["id"] % 6)})
    packed = docs.map(lambda r: {"id": r["t"] * r["id"]}).pack({"id": 8}, how="best_fit", block=9)
    parts = once(packed.lanes(BATCH), hosts)
    tokens = Counter(int(i) for row in check(parts, hosts) for i in row)
    assert {i: c for i, c in tokens.items() if i} == {i: i % 6 for i in range(1, n) if i % 6}
    bucketed = docs.bucket("t", [2, 4], block=9).lanes(BATCH)
    parts = once(bucketed, hosts, collate=pad_to(5))
    assert sorted(check(parts, hosts)) == list(range(n))
    assert sum(int(b["t_mask"].sum()) for batches in parts for b in batches) == sum(
        i % 6 for i in range(n)
    )


@pytest.mark.parametrize("batches", [1, 2, 3, 5, 9, 17, 33, 65])
def test_a_pass_evaluates_no_row_of_the_next(batches: int) -> None:
    seen: list[int] = []
    dataset = Dataset(range(4 * batches)).shuffle().map(lambda i: seen.append(i) or i)
    assert len(list(Loader(dataset, 4))) == batches
    assert sorted(seen) == list(range(4 * batches))
