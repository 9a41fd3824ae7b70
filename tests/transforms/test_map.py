"""Map and MapWithIndex: values change, provenance and number do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pytest

from pipeline import Dataset, Loader, Threads
from pipeline.block import Block, Columns
from pipeline.debug.digest import digest
from pipeline.errors import ChainError, CollateError
from pipeline.transforms import Map, MapWithIndex
from pipeline.transforms.map import unshared
from pipeline.tree import fresh, leaves

from .making import SITE, block_of, keys, site_at


def test_rows_change_and_origin_stays():
    block = block_of([1, 2, 3], first=5)
    out = Map(lambda x: x * 10, "ten").apply(block, SITE)
    assert out.values == [10, 20, 30]
    assert keys(out) == [(0, 5, ()), (0, 6, ()), (0, 7, ())]


@pytest.mark.parametrize("values", [{"x": np.arange(6)}, [{"x": i} for i in range(6)]])
def test_batched_sees_columns_and_any_grouping_gives_the_same(values):
    stage = Map(lambda c: {**c, "y": c["x"] ** 2}, "square", batched=True)
    block = block_of(values)
    whole = stage.apply(block, SITE)
    parts = [stage.apply(block.slice(a, b), SITE) for a, b in [(0, 1), (1, 1), (1, 4), (4, 6)]]
    joined = Block.concat(parts)
    for out in (whole, joined):
        assert isinstance(out.values, Columns)
        assert out.values.tree["y"].tolist() == [0, 1, 4, 9, 16, 25]
        assert out.values.tree["y"].dtype == np.int64
    assert keys(whole) == keys(joined)


def test_batched_lists_become_arrays_and_text_objects():
    out = Map(lambda c: {"t": [b"a\0", b"b"], "n": [1, 2]}, "text", batched=True).apply(
        block_of([1, 2]), SITE
    )
    assert isinstance(out.values, Columns)
    assert out.values.tree["t"].tolist() == [b"a\0", b"b"]
    assert out.values.tree["n"].dtype == np.int64


def test_batched_lists_are_never_promoted():
    with pytest.raises(CollateError, match="row 0 has dtype int64, row 2 has float64"):
        Map(lambda c: {"n": [1, 2, 2.5]}, "n", batched=True).apply(block_of([1, 2, 3]), SITE)


def test_batched_with_another_number_of_rows_shows_both():
    with pytest.raises(ChainError, match="got 3 stacked rows and returned 2"):
        Map(lambda c: c[:2], "cut", batched=True).apply(block_of(np.arange(3)), SITE)


@pytest.mark.parametrize("bad", [lambda c: {"a": c, "b": c[:1]}, lambda c: 5, lambda c: {}])
def test_batched_without_a_common_axis_shows_shapes(bad):
    with pytest.raises(ChainError, match="share their leading axis, got shapes"):
        Map(bad, "bad", batched=True).apply(block_of(np.arange(3)), SITE)


def test_batched_rows_that_do_not_stack_are_named():
    block = block_of([np.zeros(2), np.zeros(3)], first=4)
    with pytest.raises(CollateError, match=r"record 4 of Columns.*record 5 of Columns"):
        Map(lambda c: c, "id", batched=True).apply(block, SITE)


@pytest.mark.parametrize("batched", [False, True])
def test_empty_blocks_never_reach_the_function(batched):
    out = Map(lambda x: 1 / 0, "never", batched).apply(block_of({"x": np.zeros(0)}), SITE)
    assert len(out) == 0


def test_empty_block_beside_columns_keeps_them_columns():
    full = block_of({"x": np.arange(2, dtype=np.int32)})
    joined = Block.concat([block_of([]), full, block_of({"x": np.zeros(0)})])
    assert isinstance(joined.values, Columns)
    assert joined.values.tree["x"].dtype == np.int32


@pytest.mark.parametrize("batched", [False, True])
def test_functions_cannot_write_into_columns(batched):
    def spoil(c):
        c["x"] += 1
        c["y"] = c["x"]
        return c

    block = block_of({"x": np.zeros((3, 2))})
    with pytest.raises(ValueError, match="read-only"):
        Map(spoil, "spoil", batched).apply(block, SITE)
    assert block.values.tree.keys() == {"x"}  # type: ignore[union-attr]
    assert not block.values.tree["x"].any()  # type: ignore[union-attr]


def test_an_error_keeps_its_type_and_names_stage_and_row():
    with pytest.raises(ZeroDivisionError) as caught:
        Map(lambda x: 1 // (x - 2), "inverse").apply(block_of([1, 2, 3], first=8), SITE)
    assert caught.value.__notes__ == ["in S, on record 9 of Columns, epoch 0"]
    block = block_of([1, 2, 3], first=8)
    with pytest.raises(ZeroDivisionError) as caught:
        Map(lambda x: 1 // (x - 2), "inverse").apply(block, site_at(block, 40))
    assert caught.value.__notes__[0].endswith(", position 41")


def test_a_batched_error_names_its_range_of_rows():
    with pytest.raises(KeyError) as caught:
        Map(lambda c: c["y"], "y", batched=True).apply(block_of({"x": np.arange(3)}, 2), SITE)
    (note,) = caught.value.__notes__
    assert "record 2 of Columns" in note
    assert "record 4 of Columns" in note


def test_map_with_index_gives_positions():
    block = block_of(["a", "b"])
    rows = MapWithIndex(lambda i, row: (i, row), "number").apply(block, site_at(block, 100)).rows()
    assert rows == [(100, "a"), (101, "b")]
    assert type(rows[0][0]) is int
    with pytest.raises(ChainError, match="have no position"):
        MapWithIndex(lambda i, row: row, "number").apply(block, SITE)


def test_fingerprints_tell_functions_names_and_options_apart():
    stages = [
        Map(lambda x: x + 1, "a"),
        Map(lambda x: x + 2, "a"),
        Map(lambda x: x + 1, "b"),
        Map(lambda x: x + 1, "a", batched=True),
        Map(lambda x: x + 1, "a" * 60),
        Map(lambda x: x + 1, "a" * 61),
    ]
    prints = [s.fingerprint() for s in stages]
    assert len(set(prints)) == len(prints)
    assert all(len(p) <= 40 for p in prints)
    assert prints[0].startswith("map a ")
    assert Map(lambda y: y + 1, "a").fingerprint() == prints[0]
    assert cloudpickle.loads(cloudpickle.dumps(stages[0])).fingerprint() == prints[0]


HELD = np.zeros((5000, 2))


def _held(x: Any) -> Any:
    HELD[: len(x)] = x[:, None]
    return HELD[: len(x)]


# batched functions that return memory which they fill again, and others
BATCHED: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "a part of a buffer": (_held, True),
    "in a dict": (lambda x: {"a": {"b": _held(x)}, "c": x + 1}, True),
    "a part of a part": (lambda x: {"a": (_held(x)[:, :1], x)}, True),
    "new": (lambda x: np.repeat(x[:, None], 2, 1), False),
    "parts of new ones": (lambda x: {"a": np.repeat(x[:, None], 3, 1)[:, ::2], "b": x * 2}, False),
    "what it was given": (lambda x: {"a": x}, False),
}


@pytest.mark.parametrize("name", list(BATCHED))
@pytest.mark.parametrize("stage", ["", "filter", "shuffle"])
def test_memory_that_a_batched_function_fills_again_is_copied(name: str, stage: str) -> None:
    f, again = BATCHED[name]

    def copied(x: Any) -> Any:
        return fresh(f(x))

    def batches(f: Callable[[Any], Any], workers: Any) -> list[str]:
        ds = Dataset(np.arange(700), seed=1).map(f, batched=True, fingerprint="f")
        ds = ds.filter(lambda row: True) if stage == "filter" else ds
        ds = ds.shuffle() if stage == "shuffle" else ds
        with Loader(ds, 7, workers=workers) as loader:
            return [digest(batch) for batch in loader]

    for workers in (0, Threads(1)):
        assert batches(f, workers) == batches(copied, 0)
    made = Columns(f(np.arange(9)))
    before = [a.ctypes.data for _, a in leaves(made.tree) if a.flags.writeable]
    after = [a.ctypes.data for _, a in leaves(unshared(made).tree)]
    assert (not set(before) <= set(after)) == again  # what is new is not copied
