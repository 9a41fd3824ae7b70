"""Weights that are none are refused by name, in bounded messages."""

from __future__ import annotations

import pytest

from pipeline.errors import ChainError
from pipeline.sampling.schedule import Schedule


def test_weights_beyond_floats_are_refused():
    with pytest.raises(ChainError, match="add up to more than a float holds"):
        Schedule.of(["a", "b"], {"a": 1e308, "b": 1e308})
    with pytest.raises(ChainError, match="less than half a row"):
        Schedule.of(["a", "b"], {"a": 1e308, "b": 1.0})


@pytest.mark.parametrize("weight", [10**400, float("nan"), -1, "1", None, True])
def test_weights_that_are_no_shares_are_refused(weight):
    with pytest.raises(ChainError, match="of 'a': give a number from 0 on"):
        Schedule.of(["a", "b"], {"a": weight, "b": 1})


def test_messages_are_bounded():
    names = [f"dataset {i}" for i in range(5000)]
    for weights in (
        dict.fromkeys(names, 0.0),
        dict.fromkeys(names, 1e308),
        [(i, {}) for i in names],
    ):
        with pytest.raises(ChainError) as info:
            Schedule.of(names, weights)  # pyright: ignore[reportArgumentType]
        assert len(str(info.value)) < 2000
