"""Rows in flight: slices are what `take` gives, and blocks join as their layouts agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.block import Block, Columns, Origin, Segments


def packed(counts: list[int]) -> Origin:
    """Rows of so many segments each."""
    n, m = len(counts), sum(counts)
    records = Origin.of_records(0, np.arange(m) % 2, np.arange(m) * 3)
    bounds = np.cumsum([0, *counts]).astype(np.int64)
    segments = Segments(bounds, records, np.arange(m), np.arange(m) + 5)
    rows = Origin.of_records(0, np.zeros(n, np.int64), np.arange(n)).deeper(np.arange(n))
    return Origin(rows.component, rows.epoch, rows.record, rows.place, segments, segments)


def told(origin: Origin) -> Any:
    parts = [origin.component, origin.epoch, origin.record, origin.place]
    inside = [s for s in (origin.segments, origin.beside) if s is not None]
    own = [a.tolist() for a in parts]
    return own, [
        (s.bounds.tolist(), told(s.origin), s.start.tolist(), s.stop.tolist()) for s in inside
    ]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(0, 9), st.integers(0, 9))
def test_a_slice_is_what_take_gives(counts: list[int], start: int, stop: int) -> None:
    origin = packed(counts)
    chosen = np.arange(len(counts))[start:stop]
    assert told(origin.slice(start, stop)) == told(origin.take(chosen))


@pytest.mark.parametrize(
    ("one", "other", "columns"),
    [
        ({"x": np.zeros(2), "y": np.ones(2)}, {"y": np.ones(2), "x": np.zeros(2)}, True),
        ({"x": {"y": np.zeros(2)}}, {"x": {"y": np.ones(2)}}, True),
        ((np.zeros(2), np.zeros(2)), (np.ones(2), np.ones(2)), True),
        (np.zeros(2), np.ones(2), True),
        (np.zeros((2, 3)), np.ones((2, 4)), False),
        ({"x": np.zeros(2)}, {"x": np.zeros(2, np.float32)}, False),
        ({"x": np.zeros(2, ">i4")}, {"x": np.zeros(2, "<i4")}, False),
        ({"x": np.zeros(2)}, {"z": np.zeros(2)}, False),
        ({"x": np.zeros(2)}, np.zeros(2), False),
    ],
)
def test_blocks_stay_columns_where_their_layouts_agree(one: Any, other: Any, columns: bool) -> None:
    origin = Origin.of_records(0, np.zeros(2, np.int64), np.arange(2))
    parts = [Block(Columns(tree), origin) for tree in (one, other)]
    joined = Block.concat(parts)
    assert isinstance(joined.values, Columns) is columns
    assert len(joined) == 4
    assert list(map(plain, joined.rows())) == [plain(row) for p in parts for row in p.rows()]


def plain(row: Any) -> str:
    return repr(sorted(row.items()) if isinstance(row, dict) else row)
