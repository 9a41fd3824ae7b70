"""A permutation is a bijection at every n, independent of how it is asked, and golden."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ChainError, PositionError
from pipeline.sampling import permutation
from pipeline.sampling.permutation import FEW, MOST, TABLE, Permutation
from pipeline.seeds import derive_seed

GOLDEN = Path(__file__).parents[1] / "golden" / "permutation.json"
KEY = derive_seed(0, "test")
AWKWARD = sorted(
    {n for k in range(1, 21) for n in (2**k - 1, 2**k, 2**k + 1) if n > 5000}
    | {n for k in range(1, 11) for n in (4**k - 1, 4**k + 1) if n > 5000}
)
HUGE = [10**6 + 3, 10**9, 2**32 - 1, 2**32, 2**32 + 1, 4**20 + 1, 2**47 + 1, 2**48 - 1, 2**48]


def is_bijection(order: Permutation) -> bool:
    out = order(np.arange(order.n))
    if out.min() < 0 or out.max() >= order.n:
        return False
    return bool((np.bincount(out, minlength=order.n) == 1).all())


@pytest.mark.slow
def test_every_small_n_is_a_bijection():
    assert [n for n in range(1, 5001) if not is_bijection(Permutation(n, KEY))] == []


@pytest.mark.parametrize("n", AWKWARD)
def test_awkward_n_are_bijections(n: int):
    order = Permutation(n, derive_seed(n))
    assert is_bijection(order)
    some = np.random.default_rng(n).integers(n, size=2000)
    assert (order.inverse(order(some)) == some).all()


@pytest.mark.parametrize("n", [1, 2, 5, 257, TABLE, TABLE + 1, 5000])
def test_the_inverse_undoes_every_position(n: int):
    order = Permutation(n, KEY)
    everything = np.arange(n)
    assert (order.inverse(order(everything)) == everything).all()
    assert (order(order.inverse(everything)) == everything).all()


@pytest.mark.parametrize("n", HUGE)
def test_huge_n_stay_injective_and_inside(n: int):
    rng = np.random.default_rng(n)
    windows = [np.arange(start, start + 5000) for start in (0, n // 2, n - 5000)]
    some = np.unique(np.concatenate([*windows, rng.integers(n, size=20_000)]))
    out = Permutation(n, KEY)(some)
    assert out.min() >= 0
    assert out.max() < n
    assert len(np.unique(out)) == len(some)
    assert (Permutation(n, KEY).inverse(out) == some).all()
    # they spread over all of [0, n), the top included
    assert (np.bincount(out // -(-n // 16), minlength=16) > 0.9 * len(some) / 16).all()


@given(
    st.integers(1, MOST),
    st.integers(0, 2**128 - 1),
    st.lists(st.integers(0, MOST - 1), min_size=1, max_size=3 * FEW),
)
def test_an_index_has_one_image_however_it_is_asked(n: int, key: int, indices: list[int]):
    order = Permutation(n, key)
    x = np.array(indices) % n
    batch = order(np.tile(x, 10))
    alone = [int(order(x[i : i + 1])[0]) for i in range(len(x))]
    assert batch.tolist() == alone * 10
    assert (order.inverse(batch) == np.tile(x, 10)).all()


def test_chunks_meet_without_a_seam():
    order = Permutation(10**6 + 3, KEY)
    x = np.arange(3 * permutation.CHUNK + 5)
    parts = [order(part) for part in np.array_split(x, 50)]
    assert (order(x) == np.concatenate(parts)).all()


@pytest.mark.parametrize("n", [100, 5000, 10**9])
def test_keys_and_lengths_have_their_own_orders(n: int):
    x = np.arange(100)
    keys = [derive_seed(seed) for seed in range(20)] + [KEY, KEY ^ 1, KEY ^ (1 << 127)]
    orders = {Permutation(n, key)(x).tobytes() for key in keys}
    orders.add(Permutation(n + 1, KEY)(x).tobytes())
    assert len(orders) == len(keys) + 1


def test_a_hundred_and_twenty_orders_of_five_all_occur():
    seen = {tuple(Permutation(5, derive_seed(k))(np.arange(5)).tolist()) for k in range(1500)}
    assert len(seen) == 120


def test_golden_orders():
    """Who changes these changes the data of every saved state: a breaking change, new major."""
    for case in json.loads(GOLDEN.read_text()):
        order = Permutation(case["n"], int(case["key"], 16))
        x = np.array(case["positions"])
        assert order(x).tolist() == case["records"], f"n={case['n']}"


def test_what_lies_outside_is_refused():
    for n, bad in [(5, 5), (5, -1), (10**6, 10**6), (10**6, -(2**63)), (0, 0)]:
        for ask in (Permutation(n, KEY), Permutation(n, KEY).inverse):
            with pytest.raises(PositionError, match=rf"position {bad} lies outside \[0, {n}\)"):
                ask(np.array([0, bad]) if n else np.array([bad]))
    with pytest.raises(TypeError, match="integers"):
        Permutation(5, KEY)(np.array([1.0]))


@pytest.mark.parametrize("n", [0, 5, 10**6])
def test_no_positions_give_no_records(n: int):
    out = Permutation(n, KEY)(np.zeros(0, np.int64))
    assert out.dtype == np.int64
    assert out.shape == (0,)


@pytest.mark.parametrize(("n", "key"), [(-1, 0), (MOST + 1, 0), (5, -1), (5, 2**128)])
def test_impossible_lengths_and_keys_are_refused(n: int, key: int):
    with pytest.raises(ChainError, match="n=" if key == 0 else "key="):
        Permutation(n, key)


@pytest.mark.parametrize("n", [5, 10**6])
def test_the_argument_and_the_cached_table_stay_as_they_were(n: int):
    order, x = Permutation(n, KEY), np.arange(5)
    first = order(x)
    kept = first.copy()
    first[:] = 0
    assert x.tolist() == [0, 1, 2, 3, 4]
    assert (order(x) == kept).all()


def test_it_pickles_as_two_numbers():
    order = Permutation(np.int64(10**6), KEY)  # type: ignore[arg-type]
    order(np.arange(100))
    again = pickle.loads(pickle.dumps(order))
    assert again == order
    assert len(pickle.dumps(order)) < 200
