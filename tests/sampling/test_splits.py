"""Mixes with weights too small for a round of 65,536: within 1.7 rows, without a table."""

from __future__ import annotations

import pickle
import tracemalloc
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.sampling.dealing import ROUND
from pipeline.sampling.pattern import Entries, Pattern
from pipeline.sampling.schedule import Schedule
from pipeline.sampling.splits import MOST, Splits
from tests.examples import examples

COMMON = st.one_of(st.integers(1, 9), st.floats(0.001, 50))
RARE = st.sampled_from([1e-7, 3e-7, 1 / 3e6, 7e-6])


@st.composite
def fine(draw: st.DrawFn, least: int = 1) -> list[float]:
    """Weights of which one at least is too small for a round."""
    weights = draw(st.lists(COMMON, min_size=least, max_size=12))
    rare = [share * sum(weights) for share in draw(st.lists(RARE, min_size=1, max_size=4))]
    return draw(st.permutations([*weights, *rare]))


def entries_of(weights: list[Any], rows: tuple[int, ...] = (0,)) -> Entries:
    names = [str(i) for i in range(max(map(len, weights)))]
    given = [(row, dict(zip(names, w, strict=False))) for row, w in zip(rows, weights, strict=True)]
    return Schedule.of(names, given).entries


def brute(weights: tuple[int, ...], rows: int) -> list[int]:
    """The rule read out loud: each node rounds its left side's share of what it has so far."""
    heap: list[Any] = [(w, c, c) for c, w in enumerate(weights) if w]
    heapify(heap)
    while len(heap) > 1:
        (w, c, left), (x, d, right) = heappop(heap), heappop(heap)
        heappush(heap, (w + x, min(c, d), [left, right, w, w + x, 0, 0]))
    out: list[int] = []
    for _ in range(rows):
        node = heap[0][2]
        while isinstance(node, list):
            node[4] += 1
            goes_left = (2 * node[4] * node[2] + node[3]) // (2 * node[3]) > node[5]
            node[5] += goes_left
            node = node[0] if goes_left else node[1]
        out.append(node)
    return out


@given(fine(), st.integers(0, 10**6), st.integers(1, 200))
@examples(40)
def test_arithmetic_is_the_rule(weights: list[float], seed: int, some: int) -> None:
    entries = entries_of([weights])
    assume(sum(entries[0][1]) != ROUND)
    pattern, expected = Pattern(entries), brute(entries[0][1], some)
    scattered = np.random.default_rng(seed).permutation(some)
    which, rank = pattern.at(scattered)
    assert which.tolist() == np.array(expected)[scattered].tolist()
    for row, c, k in zip(scattered.tolist(), which.tolist(), rank.tolist(), strict=True):
        assert pattern.find(c, k) == row
        assert k == expected[:row].count(c)
    counts = np.bincount(expected, minlength=len(weights))
    assert pattern.counts(some).tolist() == counts.tolist()
    assert pickle.loads(pickle.dumps(pattern)).at(scattered)[0].tolist() == which.tolist()


@given(fine(), st.integers(0, 10**12))
@examples(60)
def test_every_prefix_is_within_1_7_rows_of_its_share(weights: list[float], start: int) -> None:
    entries = entries_of([weights])
    pattern, rows = Pattern(entries), np.arange(start, start + 2000)
    which, rank = pattern.at(rows)
    counts, total = pattern.counts(start).tolist(), sum(entries[0][1])
    assert sum(counts) == start
    for c, weight in enumerate(entries[0][1]):
        off = counts[c] * total - start * weight + np.cumsum(which == c) * total
        assert np.abs(off - np.arange(1, 2001) * weight).max() < 1.7 * total
        mine = rank[which == c].tolist()
        assert mine == list(range(counts[c], counts[c] + len(mine)))


def test_the_bound_is_no_smaller() -> None:
    weights = (100003, 166, 100170, 100321, 200509, 300798, 501247)
    which, _ = Pattern(((0, weights),)).at(np.arange(100_000))
    share = np.arange(1, 100_001) * weights[0] / sum(weights)
    assert 1.4 < np.abs(np.cumsum(which == 0) - share).max() < 1.7


@given(st.data(), st.integers(1, 3))
@examples(40)
def test_what_one_entry_owes_the_next_makes_up_for(data: st.DataObject, later: int) -> None:
    m = data.draw(st.integers(2, 6))
    weight = st.one_of(st.integers(0, 4), st.floats(0.01, 3), st.sampled_from([1e-7, 2e-6]))
    rows = (0, *sorted(data.draw(st.sets(st.integers(1, 400), min_size=later, max_size=later))))
    some = st.lists(weight, min_size=m, max_size=m).filter(any)
    entries = entries_of([data.draw(some) for _ in rows], rows)
    which, rank = Pattern(entries).at(np.arange(600))
    pattern, goal = Pattern(entries), np.zeros(m)
    given = np.zeros(m, int)
    for row, c in enumerate(which.tolist()):
        weights = [w for start, w in entries if start <= row][-1]
        assert weights[c]
        goal += np.array(weights) / sum(weights)
        assert rank[row] == given[c]
        assert pattern.find(c, int(rank[row])) == row
        given[c] += 1
        assert np.abs(goal - given).max() < 3
        if row % 97 == 0:
            assert pattern.counts(row + 1).tolist() == given.tolist()


def test_what_an_entry_owes_is_given_first_by_the_next() -> None:
    # 40 rows are owed to "a" or had too many: clipped, so that no side gives what it has not
    for debt in (40, -40):
        splits = Splits((500_000, 499_999, 1), (debt * 7, -debt * 7, 0), 7)
        which, rank = splits.at(np.arange(200))
        counts = np.cumsum(which == (0 if debt > 0 else 1))
        assert which[:60].tolist() == [0 if debt > 0 else 1] * 60
        assert abs(counts[-1] - 140) <= 1
        for row in range(200):
            assert splits.find(int(which[row]), int(rank[row]), 10**9) == row
            assert splits.before(row).tolist() == np.bincount(which[:row], minlength=3).tolist()


def test_a_later_entry_changes_no_earlier_row() -> None:
    weights = [[3, 1, 1e-6], [1.7, 2, 1], [1, 0, 3e-7], [1, 2, 3]]
    rows = (0, 100, 200, 300)
    expected = Pattern(entries_of(weights, rows)).at(np.arange(300))[0]
    for k in (1, 2, 3):
        before = Pattern(entries_of(weights[:k], rows[:k])).at(np.arange(100 * k))[0]
        assert before.tolist() == expected[: 100 * k].tolist()


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([3, 1], (49152, 16384)),
        ([131000, 1], (65535, 1)),  # half a row in a round, and a little more
        ([1, 1e-7], (10**7, 1)),
        ([0.9999999, 0.0000001], (9_999_999, 1)),
        ([10**7, 2, 4, 0], (5 * 10**6, 1, 2, 0)),
        ([2 / 3, 1 / 3, 1e-7], (715827811, 357913906, 107)),
        ([1, 6e-10], (MOST - 1, 1)),
    ],
)
def test_weights_are_whole_numbers_of_the_coarsest_round(weights: Any, shares: Any) -> None:
    assert entries_of([weights])[0][1] == shares


def test_far_rows_need_no_table() -> None:
    rng = np.random.default_rng(0)
    weights = [*rng.dirichlet(np.ones(997)).tolist(), 1e-7, 1e-7, 1e-7]
    entries = entries_of([weights])
    tracemalloc.start()
    try:
        pattern = Pattern(entries)
        pattern.at(np.arange(10**9, 10**9 + 128))
        assert abs(pattern.counts(10**9)[-1] - 100) <= 2
        assert pattern.find(999, 99) < 10**9 + 2 * 10**7
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
