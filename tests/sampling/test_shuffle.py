"""A shuffle of any reach is a bijection that keeps rows within it, whatever is asked together."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline import Dataset, MemorySource, concatenate, zip_datasets
from pipeline.errors import ChainError, SourceError
from pipeline.sampling.chunks import RUN, Chunks, Even, Runs, Uneven
from pipeline.sampling.permutation import Permutation
from pipeline.sampling.shuffle import Window
from pipeline.seeds import derive_seed

NAMES = (0, (), "shuffle", 3)


class Grouped:
    """Numbers whose storage reads them in runs of the given sizes."""

    def __init__(self, sizes: list[int]) -> None:
        self.chunk_bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.chunk_bounds[-1])

    def read(self, indices: Any) -> list[int]:
        return [int(i) for i in indices]


def place(reach: Any, n: int, names: Any = NAMES) -> list[int]:
    return reach.place(np.arange(n), n, names).tolist()


def cut(runs: Runs, n: int) -> list[tuple[int, int]]:
    """Each chunk's rows `[start, stop)`."""
    if isinstance(runs, Even):
        return [(s, min(s + runs.size, n)) for s in range(0, n, runs.size)]
    assert isinstance(runs, Uneven)
    return list(zip(runs.bounds[:-1].tolist(), runs.bounds[1:].tolist(), strict=True))


def reference(runs: Runs, n: int, window: int) -> list[int]:
    """The rule as it reads: chunks in a new order, then the rows of each `window` of them."""
    chunks = cut(runs, n)
    order = Permutation(len(chunks), derive_seed(*NAMES, "chunks"))(np.arange(len(chunks)))
    out: list[int] = []
    for number, first in enumerate(range(0, len(chunks), window)):
        rows = [r for c in order[first : first + window] for r in range(*chunks[c])]
        key = derive_seed(*NAMES, "window", number)
        out += [rows[i] for i in Permutation(len(rows), key)(np.arange(len(rows)))]
    return out


SIZES = st.lists(st.integers(0, 9), max_size=12)


@given(SIZES, st.integers(1, 14))
@example([0, 0, 3, 0], 1)
@example([5], 3)
def test_unequal_chunks_follow_the_rule(sizes: list[int], window: int) -> None:
    runs = Uneven(Grouped(sizes).chunk_bounds)
    assert place(Chunks(window, runs), sum(sizes)) == reference(runs, sum(sizes), window)


@given(st.integers(0, 200), st.integers(1, 30), st.integers(1, 10))
def test_even_runs_follow_the_rule(n: int, size: int, window: int) -> None:
    runs = Even(n, size)
    assert place(Chunks(window, runs), n) == reference(runs, n, window)


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 10))
def test_even_runs_and_the_same_bounds_are_one_order(n: int, size: int, window: int) -> None:
    bounds = np.unique([*range(0, n, size), n])
    assert place(Chunks(window, Even(n, size)), n) == place(Chunks(window, Uneven(bounds)), n)


@given(SIZES.filter(lambda s: sum(s) > 0), st.integers(1, 14))
def test_each_row_once_and_each_window_of_chunks_by_itself(sizes: list[int], window: int) -> None:
    runs, n = Uneven(Grouped(sizes).chunk_bounds), sum(sizes)
    rows = place(Chunks(window, runs), n)
    assert sorted(rows) == list(range(n))
    owner = np.searchsorted(runs.bounds, rows, side="right") - 1
    start = 0
    left = set(range(runs.count))
    while left:
        # the next chunks seen fill one window: exactly their rows, then never again
        now = list(dict.fromkeys(owner[start:].tolist()))
        size, mine = 0, set[int]()
        for chunk in now[:window]:
            size += int(np.diff(runs.bounds)[chunk])
            mine.add(chunk)
        assert set(owner[start : start + size].tolist()) == mine
        assert mine <= left
        left -= mine
        start += size
    assert start == n


@given(SIZES.filter(lambda s: sum(s) > 0), st.integers(1, 14), st.randoms(use_true_random=False))
def test_a_row_stands_where_it_does_whatever_is_asked_with_it(
    sizes: list[int], window: int, rng: Any
) -> None:
    n = sum(sizes)
    reach = Chunks(window, Uneven(Grouped(sizes).chunk_bounds))
    rows = place(reach, n)
    some = np.array([rng.randrange(n) for _ in range(20)])
    assert reach.place(some, n, NAMES).tolist() == [rows[i] for i in some]


@given(st.integers(1, 100), st.integers(1, 120))
def test_the_last_window_ends_with_the_epoch(n: int, window: int) -> None:
    rows = place(Window(window), n)
    for start in range(0, n, window):
        stop = min(start + window, n)
        assert sorted(rows[start:stop]) == list(range(start, stop))


def test_epochs_names_and_seeds_have_their_own_chunk_orders() -> None:
    reach = Chunks(4, Even(1000, 10))
    keys = [NAMES, (0, (), "shuffle", 4), (1, (), "shuffle", 3), (0, ("a",), "shuffle", 3)]
    keys += [(0, (), "other", 3)]
    assert len({tuple(place(reach, 1000, names)) for names in keys}) == len(keys)
    order = [r // 10 for r in place(Chunks(1, Even(1000, 10)), 1000)[::10]]
    assert sorted(order) == list(range(100))
    assert order != list(range(100))


def test_a_window_of_all_chunks_mixes_everything() -> None:
    rows = np.array(place(Chunks(100, Even(1000, 10)), 1000))
    assert len(set(rows[:50] // 10)) > 25


def test_billions_of_rows_cost_nothing_but_their_chunks() -> None:
    n = 1 << 40
    some = np.random.default_rng(0).integers(n, size=500)
    rows = Chunks(16, Even(n, 64)).place(some, n, NAMES)
    assert rows.min() >= 0
    assert rows.max() < n
    assert len(np.unique(rows)) == len(np.unique(some))


# ---- on datasets


def test_chunks_are_the_sources_own() -> None:
    ds = Dataset(Grouped([5, 3, 0, 8, 1]), seed=2)
    rows = list(ds.shuffle(chunks=1))
    assert sorted(rows) == list(range(17))
    owners = [next(c for c, end in enumerate((5, 8, 16, 17)) if r < end) for r in rows]
    assert len(set(owners)) == 1 + int((np.diff(owners) != 0).sum())


def test_without_chunks_runs_are_taken_and_run_overrides() -> None:
    assert f"runs of {RUN}" in str(Dataset(range(9)).shuffle(chunks=2))
    own = Dataset(Grouped([5, 3]))
    assert "chunks=2 of runs of 4" in own.shuffle(chunks=2, run=4).fingerprint()["stages.0"]
    assert own.shuffle(chunks=1, run=1).head(8) != own.shuffle(chunks=1).head(8)


def test_maps_and_plain_slices_may_stand_beneath() -> None:
    source = Grouped([5, 3, 8, 1])
    ds = Dataset(source).map(lambda x: x)[3:14].shuffle(chunks=1)
    rows = list(ds)
    assert sorted(rows) == list(range(3, 14))
    runs = [sorted(r for r in rows if a <= r < b) for a, b in ((0, 5), (5, 8), (8, 16))]
    at = [rows.index(run[0]) for run in runs]
    for run in runs:
        places = sorted(rows.index(r) for r in run)
        assert places == list(range(places[0], places[0] + len(run)))
    assert len(set(at)) == 3


@pytest.mark.parametrize(
    "chain",
    [
        lambda ds: ds.shuffle(name="a"),
        lambda ds: ds.repeat(2),
        lambda ds: ds[::2],
        lambda ds: ds[[3, 1]],
        lambda ds: concatenate([ds, ds]),
        lambda ds: zip_datasets({"a": ds}),
    ],
)
def test_rows_that_lie_elsewhere_are_refused(chain: Any) -> None:
    with pytest.raises(ChainError, match=r"shuffle\(window=|before it|each of them first"):
        chain(Dataset(range(9))).shuffle(chunks=2)


def test_mistakes_are_told() -> None:
    ds = Dataset(range(9))
    with pytest.raises(ChainError, match="one of the two"):
        ds.shuffle(window=2, chunks=2)
    with pytest.raises(ChainError, match="chunks= too"):
        ds.shuffle(run=2)
    with pytest.raises(ChainError, match="chunks=0"):
        ds.shuffle(chunks=0)
    with pytest.raises(ChainError, match="Move shuffle before it"):
        ds.filter(bool).shuffle(chunks=2)
    bad = Grouped([3, 4])
    bad.chunk_bounds = np.array([0, 5, 3, 7])
    with pytest.raises(SourceError, match="rise from 0 to 7"):
        Dataset(bad).shuffle(chunks=2)


def test_the_fingerprint_covers_the_chunks() -> None:
    def stage(sizes: list[int], w: int = 2) -> str:
        return Dataset(Grouped(sizes)).shuffle(chunks=w).fingerprint()["stages.0"]

    assert stage([4, 4]) == stage([4, 0, 4])
    assert len({stage([4, 4]), stage([5, 3]), stage([4, 4], 1), stage([8])}) == 4


def test_it_pickles_small_and_the_same() -> None:
    ds = Dataset(MemorySource(list(range(100)))).shuffle(chunks=2, run=7)
    again = pickle.loads(pickle.dumps(ds.top.stages[0]))
    assert again == ds.top.stages[0]
    own = Dataset(Grouped([3, 9])).shuffle(chunks=1).top.stages[0]
    assert pickle.loads(pickle.dumps(own)) == own
