"""Filter and FlatMap: which rows come out, and whose they are."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.block import Columns
from pipeline.errors import ChainError
from pipeline.transforms import Filter, FlatMap

from .making import SITE, block_of, keys


def test_filter_keeps_columns_and_provenance():
    block = block_of({"x": np.arange(6, dtype=np.int16)}, first=10)
    out = Filter(lambda r: r["x"] % 2 == 0, "even").apply(block, SITE)
    assert isinstance(out.values, Columns)
    assert out.values.tree["x"].tolist() == [0, 2, 4]
    assert out.values.tree["x"].dtype == np.int16
    assert [record for _, record, _ in keys(out)] == [10, 12, 14]


def test_filter_of_lists_to_none():
    out = Filter(lambda x: False, "none").apply(block_of(["a", "b"]), SITE)
    assert out.values == []
    assert len(out) == 0


@pytest.mark.parametrize("answer", [1, None, "yes", np.int64(1), np.array(True)])
def test_filter_wants_a_bool(answer):
    with pytest.raises(ChainError, match=r"S returned .*not True or False") as caught:
        Filter(lambda x: answer, "p").apply(block_of([1]), SITE)
    assert "record 0" in caught.value.__notes__[0]


def test_flat_map_adds_the_place_to_provenance():
    stage = FlatMap(range, "range")
    once = stage.apply(block_of([2, 0, 3], first=4), SITE)
    assert once.values == [0, 1, 0, 1, 2]
    assert keys(once) == [
        (0, 4, (0,)),
        (0, 4, (1,)),
        (0, 6, (0,)),
        (0, 6, (1,)),
        (0, 6, (2,)),
    ]
    twice = stage.apply(once, SITE)
    assert keys(twice) == [(0, 4, (1, 0)), (0, 6, (1, 0)), (0, 6, (2, 0)), (0, 6, (2, 1))]


def test_flat_map_of_nothing_is_as_deep():
    assert FlatMap(range, "r").apply(block_of([]), SITE).origin.place.shape == (0, 1)
    assert FlatMap(range, "r").apply(block_of([0, 0]), SITE).origin.place.shape == (0, 1)


@pytest.mark.parametrize("rows", ["text", {"x": 1}, 5, None])
def test_flat_map_wants_rows(rows):
    with pytest.raises(ChainError, match=r"not an iterable of rows. Return \[row\]"):
        FlatMap(lambda x: rows, "f").apply(block_of([1]), SITE)


def test_an_error_inside_a_generator_names_the_row():
    def halves(x):
        yield x / 2
        yield 1 / x

    with pytest.raises(ZeroDivisionError) as caught:
        FlatMap(halves, "halves").apply(block_of([1, 0]), SITE)
    assert "on record 1 of" in caught.value.__notes__[0]


@pytest.mark.parametrize("stage", [Filter, FlatMap])
def test_blocks_hold_a_row_and_are_part_of_the_fingerprint(stage):
    with pytest.raises(ChainError, match=r"block=0"):
        stage(bool, "b", 0)
    assert stage(bool, "b", 64).fingerprint() != stage(bool, "b", 65).fingerprint()
