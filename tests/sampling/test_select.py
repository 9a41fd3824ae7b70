"""Rows chosen by positions, masks and limits: the same members in every epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Dataset, Loader
from pipeline.errors import ChainError, PositionError


@given(st.integers(1, 30), st.data())
def test_positions_choose_as_numpy_does(n: int, data: st.DataObject) -> None:
    some = data.draw(st.lists(st.integers(-n, n - 1), max_size=20))
    ds = Dataset({"x": np.arange(n) * 3})
    expected = (np.arange(n) * 3)[np.array(some, np.int64)].tolist()
    for item in (some, np.array(some, np.int64), np.array(some, np.int32)):
        assert [int(r["x"]) for r in ds[item]] == expected
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    assert [int(r["x"]) for r in ds[mask]] == (np.arange(n) * 3)[mask].tolist()
    assert ds[mask].fingerprint() == ds[np.flatnonzero(mask)].fingerprint()


def test_members_stay_and_randomness_goes_on() -> None:
    ds = Dataset(range(20), seed=1).shuffle()[[3, 17, 5]]
    drawn = ds.random_map(lambda x, rng: (x, rng.random()), name="r").repeat(3)
    rows = list(drawn)
    assert [x for x, _ in rows] == [x for x, _ in rows[:3]] * 3
    assert len({r for _, r in rows}) == 9


def test_a_position_twice_is_the_same_row_twice() -> None:
    ds = Dataset(range(9)).random_map(lambda x, rng: rng.random(), name="r")[[4, 4]]
    assert ds[0] == ds[1]


def test_content_decides_the_fingerprint() -> None:
    ds = Dataset(range(9))
    one = ds[[1, 2]].fingerprint()
    assert one == ds[np.array([1, 2], np.uint8)].fingerprint()
    assert one == ds[[-8, 2]].fingerprint()
    assert one != ds[[2, 1]].fingerprint()


def test_a_list_chosen_of_an_endless_dataset() -> None:
    assert list(Dataset(range(3)).repeat()[[0, 4, 8]]) == [0, 1, 2]
    with pytest.raises(PositionError, match=r"\[-1\] lie outside"):
        Dataset(range(3)).repeat()[[0, -1]]


@pytest.mark.parametrize("item", [[0, 9], [-10], np.array([1, 2**40])])
def test_positions_outside_are_refused_with_values(item: Any) -> None:
    with pytest.raises(PositionError, match=r"lie outside of 0\.\.8: the dataset has 9 rows"):
        Dataset(range(9))[item]


def test_what_is_no_choice_is_refused() -> None:
    ds: Any = Dataset(range(9))
    with pytest.raises(PositionError, match="a mask of 3 booleans, but the dataset has 9 rows"):
        ds[[True, False, True]]
    with pytest.raises(PositionError, match="has no end"):
        ds.repeat()[np.array([True])]
    for item in ([0.5], [[1, 2]], ["a"], np.zeros((2, 2), int), (1, 2), (0, "x")):
        with pytest.raises(ChainError, match="flat list or array of integers or booleans"):
            ds[item]
    with pytest.raises(ChainError, match=r"masked array.*a\.compressed\(\)"):
        ds[np.ma.array([1, 2], mask=[True, False])]
    with pytest.raises(ChainError, match="counts rows as they come"):
        ds.filter(bool)[[1, 2]]


def test_arrays_of_other_libraries_choose_as_numpy_s_do() -> None:
    ds: Any = Dataset(range(9))
    pandas, torch = pytest.importorskip("pandas"), pytest.importorskip("torch")
    for make in (pa.array, pandas.Index, pandas.Series, torch.tensor):
        assert list(ds[make([3, 1])]) == [3, 1]
        assert list(ds[make([i == 4 for i in range(9)])]) == [4]
    assert ds[torch.tensor(4)] == 4


def test_an_empty_choice_is_an_empty_dataset() -> None:
    empty = Dataset(range(9))[[]]
    assert len(empty) == 0
    assert list(Loader(empty, 4)) == []


def test_limit_is_a_slice_of_whatever_length() -> None:
    ds = Dataset(range(9)).shuffle()
    assert list(ds.limit(4)) == list(ds[:4])
    assert ds.limit(4).fingerprint() == ds[:4].fingerprint()
    assert len(ds.limit(100)) == 9
    assert len(ds.limit(0)) == 0
    assert list(Dataset(range(3)).repeat().limit(5)) == [0, 1, 2, 0, 1]
    with pytest.raises(ChainError, match=r"or end passes with Loader\(steps=\)"):
        ds.filter(bool).limit(3)
    with pytest.raises(ChainError, match="limit=-1"):
        ds.limit(-1)
