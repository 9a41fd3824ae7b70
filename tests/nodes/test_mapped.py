"""Stages that change values and keep a row at each position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset
from pipeline.errors import ChainError
from tests.nodes.checks import check_indexed, digest

STAGES: dict[str, Callable[[Dataset], Dataset]] = {
    "map": lambda ds: ds.map(lambda x: {"x": np.full(3, x)}),
    "batched": lambda ds: ds.map(lambda x: x * 2, batched=True),
    "random": lambda ds: ds.random_map(lambda x, rng: x + rng.integers(99), name="r"),
    "position": lambda ds: ds.map_with_index(lambda i, x: (i, x)),
    "several": lambda ds: (
        ds.map(lambda x: {"x": np.arange(x, x + 9.0)})
        .random_map(lambda row, rng: {"x": row["x"] * rng.random()}, name="r")
        .map(lambda row: row | {"y": len(row["x"])})
    ),
    "unequal": lambda ds: ds.map(lambda x: np.arange(x)),
    "fits at first": lambda ds: ds.map(lambda x: np.zeros(4 if x < 30 else 5)),
    "changes dtype": lambda ds: ds.map(lambda x: np.zeros(4, "f4" if x < 20 else "f8")),
    "structure changes": lambda ds: ds.map(lambda x: {"a": 1} if x < 18 else {"b": 1}),
    "objects": lambda ds: ds.map(lambda x: {"text": "x" * x, "n": x}),
    "nothing in it": lambda ds: ds.map(lambda x: {}),
    "scalars of NumPy": lambda ds: ds.map(lambda x: np.float32(x)),
    "between orders": lambda ds: (
        ds.map(lambda x: x + 1).shuffle(name="again").map(lambda x: x * 2)[4:30]
    ),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_a_node(stage: str) -> None:
    check_indexed(STAGES[stage](Dataset(range(37), seed=3).shuffle()))


def test_a_stage_keeps_its_randomness_wherever_a_shuffle_stands() -> None:
    base = Dataset(range(29), seed=4)

    def drawn(ds: Dataset) -> dict[int, str]:
        block = ds.read(np.arange(29), epoch=2)
        return dict(zip(block.origin.record.tolist(), map(digest, block.rows()), strict=True))

    def noisy(ds: Dataset) -> Dataset:
        return ds.random_map(lambda x, rng: rng.random(3), name="noise")

    assert drawn(noisy(base)) == drawn(noisy(base).shuffle()) == drawn(noisy(base.shuffle()))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [(lambda x: x[:1], "a row for each"), (lambda x: {"a": x, "b": x[:2]}, "share their leading")],
)
def test_a_batched_function_gives_as_many_rows(wrong: Any, why: str) -> None:
    with pytest.raises(ChainError, match=why):
        Dataset(range(9)).map(wrong, batched=True).read([0, 1, 2, 3])


def test_only_row_by_row_stages_at_the_top_go_straight_into_a_batch() -> None:
    ds = (
        Dataset(range(9))
        .map(str)
        .map(lambda x: x, batched=True)
        .map(len)
        .random_map(lambda x, rng: x, name="r")
    )
    names = [node.transform.kind for node in ds.top.node.rowwise]
    assert names == ["map", "random_map"]
