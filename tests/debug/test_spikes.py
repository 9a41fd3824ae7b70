"""Spikes are found where they were planted, once each, and nowhere else."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.debug.spikes import FEWEST, find_spikes, robust_scores
from pipeline.errors import PositionError


def _slow_score(values: np.ndarray[Any, Any], i: int, window: int) -> float:
    past = [v for v in values[:i] if np.isfinite(v)][-window:]
    if not np.isfinite(values[i]):
        return np.inf
    if len(past) < FEWEST:
        return np.nan
    m = np.median(past)
    mad = np.median(np.abs(np.array(past) - m))
    return (values[i] - m) / max(1.4826 * mad, 1e-3 * abs(m), np.finfo(float).tiny)


@given(st.integers(0, 2**32), st.integers(10, 40), st.integers(0, 90))
def test_scores_are_those_of_the_formula(seed: int, window: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(3, 1, n).round(int(rng.integers(0, 4)))
    values[rng.random(n) < 0.1] = rng.choice([np.nan, np.inf])
    scores, _ = robust_scores(values, window=window)
    slow = [_slow_score(values, i, window) for i in range(n)]
    np.testing.assert_allclose(scores, slow, rtol=1e-9)


def _quiet(n: int = 300) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(7)
    return {"loss": rng.normal(3, 0.05, n), "grad_norm": rng.normal(1, 0.1, n)}


def test_a_quiet_run_has_none_and_a_fall_is_none() -> None:
    fields = _quiet()
    assert find_spikes(range(300), fields) == []
    fields["loss"][150:] -= 2
    assert find_spikes(range(300), fields) == []


def test_planted_spikes() -> None:
    fields = _quiet()
    fields["loss"][100:103] += 2
    fields["grad_norm"][101] = 50.0
    fields["grad_norm"][200] = np.nan
    fields["loss"][201] = np.inf
    fields["loss"][202] = 9.0
    found = find_spikes(np.arange(1000, 1300), fields)
    told = [(s.step, s.lasted, s.peak, s.fields, s.score is None) for s in found]
    assert told == [
        (1100, 3, 1101, ("grad_norm", "loss"), False),
        (1200, 2, 1200, ("loss", "grad_norm"), True),
        (1202, 1, 1202, ("loss",), False),
    ]
    assert found[0].values["grad_norm"] == 50.0
    json.dumps([s.as_json() for s in found], allow_nan=False)


def test_steps_apart_are_spikes_apart() -> None:
    fields = _quiet()
    fields["loss"][[100, 102]] += 2
    assert [s.step for s in find_spikes(range(300), fields)] == [100, 102]
    # where steps between them were left out of the run, they do not stand on end
    assert len(find_spikes(np.delete(np.arange(301), 101), {"loss": fields["loss"]})) == 2


@pytest.mark.parametrize("constant", [0.0, 2.5])
def test_a_constant_past_has_a_floor(constant: float) -> None:
    values = np.full(40, constant)
    values[30] += max(constant, 1.0) * 0.004  # four thousandths: below the threshold of five
    assert bool(find_spikes(range(40), {"loss": values})) == (constant == 0)


def test_bad_options() -> None:
    wrong: list[dict[str, Any]] = [
        {"window": 9},
        {"window": 2.5},
        {"threshold": 0},
        {"threshold": float("nan")},
    ]
    for options in wrong:
        with pytest.raises(PositionError):
            find_spikes(range(3), {"loss": [1, 2, 3]}, **options)
