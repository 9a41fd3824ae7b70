"""A state as loaders with a TorchFeed write it, kept as the first of its version: lists alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, merge, mix
from pipeline.errors import MismatchError

KEPT: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden/whole.json").read_text())


def documents(first: int) -> Dataset:
    rows = [np.arange(first + i, first + i + 3 + i % 4, dtype=np.int32) for i in range(30)]
    return Dataset(rows, seed=1)


def packed(*, shuffled: bool = True) -> Loader:
    one = documents(0).shuffle() if shuffled else documents(0)
    parts = {"a": one.pack(8, block=8), "b": documents(100).pack(8, block=8)}
    return Loader(mix(parts, {"a": 2, "b": 1}, "never").lanes(2), 4)


@pytest.mark.parametrize("state", [KEPT["state"], merge([KEPT["state"]] * 2)])
def test_it_restores(state: Any) -> None:
    loader = packed()
    loader.load_state_dict(state)
    assert [next(loader)["tokens"][:, 0].tolist() for _ in range(3)] == KEPT["next"]


def test_no_field_of_it_is_a_mapping() -> None:
    assert not any(isinstance(value, dict) for value in KEPT["state"].values())


def test_another_dataset_is_told() -> None:
    with pytest.raises(MismatchError, match=r"a\.stage 0: shuffle -> pack .*a\.stage 1: gone"):
        packed(shuffled=False).load_state_dict(KEPT["state"])
