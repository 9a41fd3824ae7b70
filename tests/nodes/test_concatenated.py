"""Datasets one after another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline import Dataset, concatenate, mix, zip_datasets
from pipeline.errors import ChainError
from pipeline.types import ENDLESS
from tests.nodes.checks import check_indexed


def _parts(sizes: Sequence[int]) -> list[Dataset]:
    return [Dataset(range(100 * i, 100 * i + n), seed=i).shuffle() for i, n in enumerate(sizes)]


@pytest.mark.parametrize("sizes", [[5], [3, 4], [1, 1, 1], [7, 1, 12], [0, 3], [3, 0, 2], [4, 0]])
def test_a_concatenation_is_a_node(sizes: list[int]) -> None:
    check_indexed(concatenate(_parts(sizes)))
    check_indexed(concatenate(_parts(sizes)).shuffle())
    check_indexed(concatenate(_parts(sizes)).repeat(2))


def test_of_all_kinds_of_datasets() -> None:
    a, b = _parts([9, 9])
    inner = mix({"a": a, "b": b}, {"a": 2, "b": 1})[:8]
    both = zip_datasets({"l": a, "r": b}).map(lambda row: row["l"] + row["r"])
    check_indexed(concatenate([inner, both, a.map(lambda x: x + 1), concatenate([a, b])[3:6]]))


def test_an_epoch_is_one_epoch_of_each_in_order() -> None:
    whole = concatenate(_parts([4, 6]))
    for epoch in range(3):
        block = whole.read(np.arange(10), epoch=epoch)
        assert sorted(block.rows()[:4]) == list(range(4))
        assert sorted(block.rows()[4:]) == list(range(100, 106))
        assert set(block.origin.epoch.tolist()) == {epoch}


def test_find_and_place_are_inverse() -> None:
    node = concatenate(_parts([3, 0, 5, 1])).top.node
    which, index = node.find(np.arange(9))  # pyright: ignore[reportAttributeAccessIssue]
    names = list(node.parts)
    for c in set(which.tolist()):
        there = np.flatnonzero(which == c)
        assert node.place(names[c], index[there]).tolist() == there.tolist()  # pyright: ignore[reportAttributeAccessIssue]


def test_mixes_beneath_are_drawn_part_by_part() -> None:
    a, b = _parts([6, 6])
    mixed = mix({"a": a, "b": b}, {"a": 1, "b": 1})
    node = concatenate([a, mixed]).top.node
    key = next(iter(node.touched(0, "")))
    assert [node.touched(rows, "")[key] for rows in (0, 6, 7, 10, 17)] == [0, 0, 1, 4, 11]
    assert node.touched(19, "")[key] == ENDLESS  # where its next pass begins, only all rows tell


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([], "no datasets"),
        ([Dataset(range(3)).repeat(), Dataset(range(3))], "never ends"),
        ([Dataset(range(3)).filter(bool), Dataset(range(3))], "rows by position"),
    ],
)
def test_what_has_no_end_or_no_positions_is_refused(parts: list[Dataset], why: str) -> None:
    with pytest.raises(ChainError, match=why):
        concatenate(parts)
