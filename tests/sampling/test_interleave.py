"""Datasets take turns as the rule says, at any lengths, each row once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Dataset, interleave
from pipeline.errors import ChainError
from pipeline.sampling.interleave import Turns


def reference(lengths: list[int], cycle: int, run: int) -> list[tuple[int, int]]:
    """Round by round, as the docstring reads."""
    waiting = [i for i, n in enumerate(lengths) if n]
    slots: list[int | None] = [None] * cycle
    given, out = [0] * len(lengths), list[tuple[int, int]]()
    while True:
        for s in range(cycle):
            if slots[s] is None and waiting:
                slots[s] = waiting.pop(0)
        if not any(d is not None for d in slots):
            return out
        for s, d in enumerate(slots):
            if d is None:
                continue
            some = range(given[d], min(given[d] + run, lengths[d]))
            out += [(d, i) for i in some]
            given[d] += len(some)
            if given[d] == lengths[d]:
                slots[s] = None


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=7),
    st.integers(1, 8),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_turns_follow_the_rule_wherever_they_are_asked(
    lengths: list[int], cycle: int, run: int, rng: Any
) -> None:
    expected = reference(lengths, cycle, run)
    assert len(set(expected)) == sum(lengths)
    positions = np.array(rng.sample(range(sum(lengths)), sum(lengths)), np.int64)
    which, index = Turns(lengths, cycle, run).locate(positions)
    got = list(zip(which.tolist(), index.tolist(), strict=True))
    assert got == [expected[p] for p in positions]


def test_many_large_datasets_are_arithmetic() -> None:
    lengths = np.random.default_rng(0).integers(1, 10**9, 5000).tolist()
    turns = Turns(lengths, 16, 4)
    positions = np.random.default_rng(1).integers(sum(lengths), size=200)
    which, index = turns.locate(positions)
    assert (index >= 0).all()
    assert (index < np.array(lengths)[which]).all()
    assert len(set(zip(which.tolist(), index.tolist(), strict=True))) == len(set(positions))


def test_components_keep_their_own_orders_and_paths() -> None:
    a, b = Dataset(range(5)).shuffle(), Dataset(range(5)).shuffle()
    rows = list(interleave([a, b]))
    assert sorted(rows[::2]) == sorted(rows[1::2]) == list(range(5))
    assert rows[::2] != rows[1::2]
    both = interleave([a, b], run=5)
    assert [c.path for c in both.components] == [("0",), ("1",)]
    assert list(both) == [*rows[::2], *rows[1::2]]


def test_cycle_and_run_are_part_of_the_data() -> None:
    parts = [Dataset(range(3)), Dataset(range(4)), Dataset(range(5))]
    prints = [
        interleave(parts, cycle=c, run=r).fingerprint() for c, r in ((1, 1), (2, 1), (3, 1), (3, 2))
    ]
    assert len({str(p) for p in prints}) == 4
    assert interleave(parts, cycle=9).fingerprint() == interleave(parts).fingerprint()
    assert list(interleave(parts, cycle=1)) == [*range(3), *range(4), *range(5)]


def test_what_cannot_take_turns_is_refused() -> None:
    ds = Dataset(range(3))
    with pytest.raises(ChainError, match="interleave of no datasets"):
        interleave([])
    with pytest.raises(ChainError, match=r"interleave: dataset '1' never ends"):
        interleave([ds, ds.repeat()])
    with pytest.raises(ChainError, match="Move it after the interleave"):
        interleave([ds, ds.filter(bool)])
    with pytest.raises(ChainError, match="in a list"):
        interleave(ds)  # type: ignore[arg-type]
    with pytest.raises(ChainError, match="cycle=0"):
        interleave([ds], cycle=0)
    with pytest.raises(ChainError, match="run=0"):
        interleave([ds], run=0)
