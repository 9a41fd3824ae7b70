"""The pattern of a mix: every prefix within one row of its shares, as Tijdeman's rule says."""

from __future__ import annotations

import pickle
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ChainError
from pipeline.sampling.dealing import ROUND, Even, Owing
from pipeline.sampling.pattern import FIRST, Entries, Pattern
from pipeline.sampling.schedule import Schedule
from tests.examples import examples

FLOATS = st.lists(st.floats(0.001, 50), min_size=1, max_size=9)


def entries_of(weights: list[list[float]], rows: list[int]) -> Entries:
    names = [str(i) for i in range(len(weights[0]))]
    given = [(r, dict(zip(names, w, strict=True))) for r, w in zip(rows, weights, strict=True)]
    return Schedule.of(names, given).entries


@st.composite
def schedules(draw: st.DrawFn) -> Entries:
    m = draw(st.integers(1, 6))
    weight = st.one_of(st.integers(0, 4), st.floats(0.01, 3))
    rows = [0, *sorted(draw(st.sets(st.integers(1, 150), max_size=3)))]
    weights = [draw(st.lists(weight, min_size=m, max_size=m).filter(any)) for _ in rows]
    return entries_of(weights, rows)


def brute(entries: Entries, rows: int) -> list[int]:
    """Tijdeman's rule read out loud, in fractions."""
    m = len(entries[0][1])
    goal, count, out = [Fraction(0)] * m, [0] * m, list[int]()
    for row in range(rows):
        weights = [Fraction(w, ROUND) for w in [w for start, w in entries if start <= row][-1]]
        e = Fraction(1, max(2 * (sum(w > 0 for w in weights) - 1), 1))
        goal = [g + w for g, w in zip(goal, weights, strict=True)]
        debt = [g - c for g, c in zip(goal, count, strict=True)]
        live = [c for c in range(m) if weights[c]]
        due = [c for c in live if debt[c] >= e]
        due = due or [c for c in live if debt[c] == max(debt[x] for x in live)]
        chosen = min(due, key=lambda c: ((1 - e - debt[c]) / weights[c], c))
        out.append(chosen)
        count[chosen] += 1
    return out


@given(FLOATS)
@examples(25)
def test_every_prefix_is_within_one_row_of_its_share(weights: list[float]) -> None:
    entries = entries_of([weights], [0])
    rows = np.arange(3 * FIRST)
    which, rank = Pattern(entries).at(rows)
    total = sum(entries[0][1])
    most = 1 if total == ROUND else 1.7  # of weights that no round holds: see sampling/splits.py
    for c, weight in enumerate(entries[0][1]):
        given = np.cumsum(which == c)
        assert np.abs(given - (rows + 1) * weight / total).max() < most
        assert rank[which == c].tolist() == list(range(given[-1]))


@given(schedules())
@examples(60)
def test_the_table_is_the_rule(entries: Entries) -> None:
    pattern, expected = Pattern(entries), brute(entries, 260)
    which, rank = pattern.at(np.arange(260))
    assert which.tolist() == expected
    scattered = np.random.default_rng(0).permutation(260)
    assert pattern.at(scattered)[0].tolist() == which[scattered].tolist()
    for row in (0, 1, 77, 151, 260):
        counts = np.bincount(expected[:row], minlength=len(entries[0][1]))
        assert pattern.counts(row).tolist() == counts.tolist()
    for row, (c, k) in enumerate(zip(expected, rank.tolist(), strict=True)):
        assert pattern.find(c, k) == row
    assert (
        pickle.loads(pickle.dumps(pattern)).at(scattered)[0].tolist() == which[scattered].tolist()
    )


def test_far_rows_are_arithmetic() -> None:
    pattern = Pattern(entries_of([[1, 2, 5.5], [3, 0, 1]], [0, 1000]))
    far = 10**12
    which, rank = pattern.at(np.arange(far, far + 500))
    counts = pattern.counts(far)
    for c in range(3):
        mine = rank[which == c]
        assert mine.tolist() == list(range(counts[c], counts[c] + len(mine)))
        if len(mine):
            assert pattern.find(c, int(mine[0])) == far + int(np.flatnonzero(which == c)[0])
    assert counts.sum() == far
    assert abs(counts[0] - (1000 * 1 / 8.5 + (far - 1000) * 0.75)) < 2
    assert pattern.end(1) == 1000
    assert pattern.find(1, 10**6) > far * 1000  # never


@given(st.lists(st.sampled_from([1, 2, 4, 8]), min_size=2, max_size=6))
@examples(20)
def test_rounds_repeat(weights: list[int]) -> None:
    total = sum(weights)
    weights = [*weights, (1 << (total - 1).bit_length()) - total or total]
    pattern = Pattern(entries_of([list(map(float, weights))], [0]))
    size = sum(weights)
    which = pattern.at(np.arange(4 * size))[0].reshape(4, size)
    assert (which == which[0]).all()
    assert np.bincount(which[0]).tolist() == weights


def test_more_rows_change_no_earlier_one() -> None:
    entries = entries_of([[0.3, 0.2, 0.123]], [0])
    grown, whole = Pattern(entries), Pattern(entries)
    everything = whole.at(np.arange(70_000))[0]
    for start, stop in pairwise([0, 3, 900, 5000, 70_000]):
        assert (grown.at(np.arange(start, stop))[0] == everything[start:stop]).all()


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"a": 1}, r"Give a weight for \['b'\]"),
        ({"a": 1, "b": 1, "c": 1}, r"Give a dataset for \['c'\]"),
        ({"a": 1, "b": -1}, "weight -1 of 'b'"),
        ({"a": 1, "b": float("nan")}, "weight nan of 'b'"),
        ({"a": 1, "b": True}, "weight True"),
        ({"a": 0, "b": 0}, "all 0"),
        ({"a": 1e10, "b": 1}, "weight 1 of 'b' is 1e-10 .* Give it 9.3 or more, or 0"),
        ([], "must rise from 0"),
        ([(1, {"a": 1, "b": 1})], "must rise from 0"),
        ([(0, {"a": 1}), (9, {"b": 1}), (9, {"b": 2})], "must rise"),
        ([{"a": 1, "b": 1}], "is no entry"),
        (7, "weights=7"),
    ],
)
def test_weights_are_checked(weights: Any, says: str) -> None:
    with pytest.raises(ChainError, match=says):
        Schedule.of(["a", "b"], weights)


@given(FLOATS, st.lists(st.integers(1, 300), min_size=1, max_size=4))
@examples(20)
def test_many_rows_at_once_are_those_dealt_one_by_one(
    weights: list[float], pieces: list[int]
) -> None:
    shares = entries_of([weights], [0])[0][1]
    even, one_by_one = Even(shares), Owing(shares, (0,) * len(shares), ROUND)
    start = 0
    for rows in pieces:
        stop = start + rows
        assert even.deal(start, stop).tolist() == one_by_one.deal(start, stop).tolist()
        assert even.debts(stop) == one_by_one.debts(stop)
        start = stop
