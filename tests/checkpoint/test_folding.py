"""The state of a mix of many datasets is short, names what differs, and older ones are read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, mix
from pipeline.checkpoint import state as states
from pipeline.errors import MismatchError

N = 1000
EQUAL = {f"c{i}": 1 + i % 5 for i in range(N)}


def _mix(weights: Any = EQUAL, *, changed: int = -1) -> Dataset:
    values = {f"c{i}": np.arange(8) + i + (i == changed) for i in range(N)}
    parts = {name: Dataset({"x": x}, seed=1).shuffle() for name, x in values.items()}
    return mix(parts, weights, stop="never")


def test_a_thousand_datasets_take_less_than_32_kb_and_a_mismatch_names_the_one() -> None:
    loader = Loader(_mix(), 8)
    next(loader)
    text = json.dumps(loader.state_dict())
    assert len(text) < 32_000
    assert '\\"c7\\": ' in text  # the schedule can be read
    state, after = json.loads(text), next(loader)["x"].tolist()
    other = Loader(_mix(), 8)
    other.load_state_dict(state)
    assert next(other)["x"].tolist() == after
    with pytest.raises(MismatchError, match=r"dataset\. c7\.digest: \w+ -> \w+\. Intended"):
        Loader(_mix(changed=7), 8).load_state_dict(state)
    Loader(_mix(changed=7), 8).load_state_dict(state, allow={"c7.digest"})


def test_rare_datasets_and_weights_of_many_digits_take_no_more() -> None:
    shares = np.random.default_rng(0).dirichlet(np.ones(N)).tolist()
    weights = dict(zip(EQUAL, shares, strict=True)) | {"c7": 1e-7}
    loader = Loader(_mix(weights), 8)
    next(loader)
    text = json.dumps(loader.state_dict())
    assert len(text) < 32_000
    assert "/c7=107/" in text
    later = [(0, weights), (loader.frontier, weights | {"c8": 1e-7})]
    resumed, after = Loader(_mix(later), 8), loader.frontier
    resumed.load_state_dict(json.loads(text))
    assert resumed.frontier == after
    with pytest.raises(MismatchError, match="schedule"):
        Loader(_mix([(0, weights), (4, EQUAL)]), 8).load_state_dict(json.loads(text))


def test_its_schedule_may_be_edited_where_nothing_is_drawn() -> None:
    loader = Loader(_mix(), 8)
    next(loader)
    state = loader.state_dict()
    later = [(0, EQUAL), (loader.frontier, dict.fromkeys(EQUAL, 1))]
    Loader(_mix(later), 8).load_state_dict(state)
    with pytest.raises(MismatchError, match="schedule"):
        Loader(_mix([(0, EQUAL), (4, dict.fromkeys(EQUAL, 1))]), 8).load_state_dict(state)


def test_states_that_tell_everything_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(states, "FEW", 1 << 30)  # as all were written before
        states._folded.cache_clear()
        loader = Loader(_mix(), 8)
        next(loader)
        state = json.loads(json.dumps(loader.state_dict()))
        states._folded.cache_clear()
    assert "c7.source" in state["dataset"]
    Loader(_mix(), 8).load_state_dict(state)
    with pytest.raises(MismatchError, match=r"c7\.source: other records"):
        Loader(_mix(changed=7), 8).load_state_dict(state)
