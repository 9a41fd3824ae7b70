"""Filters and packs above a mix that deals lanes: so many dealt rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipeline import Dataset, mix
from tests.nodes.checks import check_streamed, reader_of


def _mixed(n: int = 40) -> Dataset:
    docs = Dataset([np.arange(1 + i % 5) for i in range(n)], seed=1).shuffle()
    parts = {"a": docs.filter(lambda x: len(x) > 1, block=6), "b": docs}
    return mix(parts, {"a": 2, "b": 1}, "never", seed=3)


STAGES: dict[str, Callable[[Dataset, int], Dataset]] = {
    "filter": lambda ds, block: ds.filter(lambda x: len(x) % 2 > 0, block=block),
    "flat_map": lambda ds, block: ds.flat_map(lambda x: list(x), block=block),
    "pack": lambda ds, block: ds.pack(7, block=block),
    "best_fit": lambda ds, block: ds.pack(7, how="best_fit", block=block),
    "several": lambda ds, block: (
        ds.filter(lambda x: len(x) > 0, block=block).pack(6, block=3).map(lambda row: row["tokens"])
    ),
}


@pytest.mark.parametrize(("block", "lanes"), [(1, 2), (8, 1), (64, 2)])
@pytest.mark.parametrize("stage", STAGES)
def test_units_are_a_node(stage: str, block: int, lanes: int) -> None:
    check_streamed(STAGES[stage](_mixed(), block).lanes(lanes), rows=40)


def test_a_pass_begins_where_one_before_it_was_found_to_end() -> None:
    # a place is read for the end of one pass, and then, by the same reader, for the next
    parts = {"a": Dataset(range(5)).filter(lambda x: True, block=2), "b": Dataset(range(10, 14))}
    part = mix(parts, {"a": 1, "b": 1}, "first").filter(lambda x: True, block=3, name="up").top
    reader = reader_of(part)
    _, place = reader.pull(0, reader.start(), 0, 100)
    assert reader.pull(0, place, 0, 1)[0] == []
    assert not reader.has(0, place, 0, 1)
    begin = reader.turn(place, 1)
    assert begin == place  # the place itself tells that the pass has ended
    assert reader.has(0, begin, 1, 1)
    blocks, _ = reader.pull(0, begin, 1, 100)
    assert sum(map(len, blocks)) > 0
    assert reader.pull(0, place, 0, 1)[0] == []  # also once the next pass was read
    assert not reader.has(0, place, 0, 1)


@pytest.mark.parametrize("stop", ["first", "all"])
@pytest.mark.parametrize("stage", ["filter", "pack"])
def test_of_mixes_that_end(stage: str, stop: str) -> None:
    docs = Dataset([np.arange(1 + i % 5) for i in range(15)], seed=1).shuffle()
    parts = {"a": docs.filter(lambda x: len(x) > 1, block=6), "b": docs[:9]}
    mixed = mix(parts, {"a": 1, "b": 1}, stop, seed=3)  # pyright: ignore[reportArgumentType]
    check_streamed(STAGES[stage](mixed, 4))
    check_streamed(STAGES[stage](mixed.repeat(2), 4))


def test_units_of_mixes_of_units() -> None:
    inner = STAGES["pack"](_mixed(), 8).map(lambda row: row["tokens"])
    outer = mix(
        {"inner": inner, "docs": Dataset([np.arange(3)] * 9)}, {"inner": 1, "docs": 1}, "never"
    )
    check_streamed(STAGES["pack"](outer, 4), rows=30)
