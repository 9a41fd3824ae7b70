"""Mixes in which some datasets are streamed: each lane deals its components' same lane."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, mix
from pipeline.errors import ChainError
from tests.nodes.checks import check_streamed, reader_of


def _parts(n: int = 40) -> dict[str, Dataset]:
    return {
        "packed": Dataset([np.arange(1 + i % 4) for i in range(n)], seed=1)
        .shuffle()
        .pack(4, block=6)
        .map(lambda row: int(row["tokens"].sum())),
        "kept": Dataset(range(1000, 1000 + n), seed=2)
        .shuffle()
        .filter(lambda x: x % 3 > 0, block=5),
        "indexed": Dataset(range(2000, 2000 + n), seed=3).shuffle(),
    }


WEIGHTS: list[Any] = [
    {"packed": 1, "kept": 1, "indexed": 1},
    {"packed": 5, "kept": 1, "indexed": 0.25},
    [(0, {"packed": 1, "kept": 1}), (8, {"kept": 1, "indexed": 3})],
]

STOPS = ["first", "all", "never"]


@pytest.mark.parametrize(
    ("weights", "stop", "lanes"),
    [(w, stop, 1 + i % 2) for i, (w, stop) in enumerate(product(WEIGHTS, STOPS))],
)
def test_a_mix_of_lanes_is_a_node(weights: Any, stop: Any, lanes: int) -> None:
    check_streamed(mix(_parts(), weights, stop, seed=4).lanes(lanes), rows=60)


@pytest.mark.parametrize("stop", ["first", "all"])
def test_repeated_and_with_stages_on_it(stop: Any) -> None:
    mixed = mix(_parts(12), WEIGHTS[0], stop, seed=4)
    check_streamed(mixed.repeat(2).map(lambda x: x + 1))
    check_streamed(mixed.random_map(lambda x, rng: x + rng.integers(9), name="r").repeat(2))


def test_mixes_in_mixes() -> None:
    inner = mix(_parts(16), WEIGHTS[0], "never", seed=5)
    outer = {"inner": inner, "plain": Dataset(range(9), seed=6).shuffle().repeat()}
    check_streamed(mix(outer, {"inner": 2, "plain": 1}, "never", seed=7).lanes(2), rows=70)


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_what_is_drawn_of_a_component_is_a_prefix_of_its_own_lane(lanes: int) -> None:
    kept = Dataset(range(1000, 1060)).filter(lambda x: x % 3 > 0, block=5)
    parts = _parts() | {"kept": kept}
    mixed = mix(parts, {"packed": 3, "kept": 2, "indexed": 1}, "never", seed=4).lanes(lanes).top
    for lane in range(lanes):
        reader, own = reader_of(mixed), reader_of(kept.lanes(lanes).top)
        blocks, _ = reader.pull(lane, reader.start(), 0, 18)
        drawn = [row for block in blocks for row in block.rows() if 1000 <= row < 2000]
        wanted, _ = own.pull(lane, own.start(), 0, len(drawn))
        assert drawn == [row for block in wanted for row in block.rows()]
        assert len(drawn) == 6


def test_a_component_with_lanes_of_its_own_is_refused() -> None:
    parts = _parts() | {"kept": _parts()["kept"].lanes(2)}
    with pytest.raises(ChainError, match="after the outermost mix"):
        mix(parts, WEIGHTS[0])
