"""Collate: what stacks, what becomes objects, and what is refused with names."""

from __future__ import annotations

from collections import UserDict, namedtuple
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline import Dataset, Loader
from pipeline.errors import CollateError, PipelineError
from pipeline.transforms import collate, collate_block
from pipeline.transforms.collate import FEW, Look
from pipeline.tree import map_leaves

from .making import block_of

Pair = namedtuple("Pair", "a b")


@dataclass
class Sample:
    x: int
    y: float


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [
        ([1, 2], np.int64),
        ([1.0, 2], None),
        ([1.5, 2.5], np.float64),
        ([True, False], np.bool_),
        ([1j, 2j], np.complex128),
        ([np.int8(1), np.int8(2)], np.int8),
        ([np.float32(1), np.array(2, np.float32)], np.float32),
        ([1, np.int64(2)], np.int64),
        ([[1, 2], [3, 4]], np.int64),
        ([np.array(3), np.array(4)], np.int64),
        ([np.datetime64("2020-01-01"), np.datetime64("2020-01-02")], "M8[D]"),
        (["a", "bc"], object),
        ([b"a\0", b"b"], object),
        ([None, "x"], object),
        ([np.str_("a"), "b"], object),
        ([["a"], ["b"]], object),
        ([[[1, 2], None], [[1], None]], object),
        ([{1}, {2, 3}], object),
        ([np.array(["a"]), np.array(["bc"])], object),
    ],
)
def test_dtypes(rows, dtype):
    if dtype is None:
        with pytest.raises(CollateError, match="dtype"):
            collate(rows)
        return
    out = collate(rows)
    assert out.dtype == np.dtype(dtype)
    assert len(out) == len(rows)
    for got, row in zip(out, rows, strict=True):
        assert np.array_equal(got, row) if dtype is not object else np.all(got == row)


@pytest.mark.parametrize(
    "ds",
    [
        Dataset(range(4)).map(lambda i: np.ma.masked_equal([i, 1], 1)),
        Dataset(range(4)).map(lambda i: {"a": [{"x": np.ma.masked_equal(i, 1)}]}),
        Dataset({"x": np.arange(4)}).map(
            lambda b: {"x": np.ma.masked_equal(b["x"], 1)}, batched=True
        ),
    ],
)
@pytest.mark.parametrize("size", [1, 2])
def test_masked_arrays_that_a_map_makes_are_refused(ds, size):
    with pytest.raises(PipelineError, match=r"a masked array.* Give two fields"):
        next(Loader(ds, size))


def test_object_arrays_have_one_axis():
    assert collate([["a", "b"], ["c", "d"]]).shape == (2,)


def test_containers_keep_their_kind():
    rows = [{"p": Pair(i, (i, 1.0)), "s": Sample(i, 0.5), "n": {"t": "x"}} for i in range(3)]
    out = collate(rows)
    assert isinstance(out["p"], Pair)
    assert isinstance(out["s"], Sample)
    assert out["p"].b[0].tolist() == [0, 1, 2]
    assert out["s"].x.tolist() == [0, 1, 2]
    assert out["n"]["t"].tolist() == ["x"] * 3


@given(hnp.arrays(st.sampled_from(["i4", "f8", "?", ">i2", "u1"]), hnp.array_shapes(max_dims=3)))
def test_stacking_then_taking_apart_gives_the_rows_back(a):
    out = collate([{"a": row} for row in a])
    assert out["a"].dtype == a.dtype.newbyteorder("=")
    np.testing.assert_array_equal(out["a"], a)
    assert not np.shares_memory(out["a"], a)


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(), st.floats()), min_size=1))
def test_scalars_round_trip(rows):
    out = collate(rows)
    for i, row in enumerate(rows):
        back = map_leaves(lambda a, i=i: a[i], out)
        assert (int(back[0]), back[1]) == row[:2]
        assert float(back[2]) == row[2] or row[2] != row[2]


def _say(i: int) -> str:
    return f"record {17 + i} of a.parquet"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"tokens": np.zeros(512)}, {"tokens": np.zeros(512)}, {"tokens": np.zeros(377)}],
            r"cannot stack field 'tokens': record 17 of a.parquet has shape \(512,\), record 19 of "
            r"a.parquet has \(377,\). Pack, pad in .map, or pass collate=.",
        ),
        ([{"a": {"b": 1}}, {"a": {"b": 2.5}}], "'a.b': record 17.* dtype int64, .*18.* float64"),
        ([1, True], "cannot stack rows: .* dtype int64, record 18 of a.parquet has bool"),
        ([5, None], r"dtype int64, .* object \(NoneType\)"),
        (["x", 5], r"dtype object \(str\), .* int64"),
        ([np.zeros(2, "f4"), np.zeros(2, "f8")], "dtype float32, .* float64"),
        ([[1, 2], [3]], r"shape \(2,\), .* \(1,\)"),
        ([[[1], [2, 3]]], "record 17 of a.parquet has a list whose parts differ in length"),
        ([{"a": 1}, {"a": 1, "b": 2}], r"fields \['a'\] .*18 .* has \['a', 'b'\]"),
        ([{"a": 1, "b": 2}, {"a": 1}], r"fields \['a', 'b'\] .* has \['a'\]"),
        ([(1, 2), (1,)], "fields"),
        ([{"a": 1}, 5], r"fields \['a'\] \(dict\), .* has int"),
        ([5, {"a": 1}], "dtype int64"),
        ([{"a": {"b": 1}}, {"a": None}], r"'a': .* fields \['b'\] \(dict\), .* has NoneType"),
        ([1, 2**63], "record 18 of a.parquet has 9223372036854775808, which does not fit int64"),
        ([], "cannot stack 0 rows"),
    ],
)
def test_refusals_name_field_and_records(rows, message):
    with pytest.raises(CollateError, match=message):
        collate(rows, _say)


def test_rows_that_are_mappings_but_no_dicts_are_told_what_to_do():
    ds = Dataset([1, 2, 3]).map(lambda x: UserDict(x=x))
    for size in (1, 3):
        with pytest.raises(CollateError, match=r"record 0 .* is a UserDict, which is no dict\."):
            next(Loader(ds, size))
    assert next(Loader(ds.map(dict), 3))["x"].tolist() == [1, 2, 3]


def test_columns_pass_through():
    tree = {"x": np.arange(3)}
    assert collate_block(block_of(tree))["x"] is tree["x"]
    assert collate_block(block_of([{"x": 1}]))["x"].tolist() == [1]


class Level(IntEnum):
    LOW = 105  # the letter "i"


EDGES = [0, -1, 105, 1 << 31, (1 << 31) - 1, -(1 << 31), -(1 << 31) - 1, 1 << 62, -(1 << 80)]
NUMBERS = [0.0, -0.0, float("inf"), float("nan"), np.frombuffer(b"g" * 8)[0].item()]
OTHERS = [True, None, "i", b"iiii", (1, 2), [], Level.LOW, np.int64(1), np.int32(1), np.float64(1)]
OTHERS += [np.zeros(1, np.uint8), 1j, object(), {}, float]


@given(
    st.sampled_from([EDGES[:6], NUMBERS]).flatmap(
        lambda plain: st.tuples(
            st.lists(st.sampled_from(plain), min_size=FEW, max_size=3 * FEW),
            st.lists(st.sampled_from(EDGES + NUMBERS + OTHERS), max_size=2),
            st.integers(0, 3 * FEW),
        )
    )
)
def test_a_look_tells_types_and_numbers(drawn):
    values, others, at = drawn
    values[at:at] = others
    kinds, numbers = Look.at(values)
    assert kinds == set(map(type, values))
    if numbers is not None:
        expected = np.array(values, {int: np.int64, float: np.float64}[kinds.pop()])
        assert not kinds
        assert numbers.dtype == expected.dtype
        assert numbers.tobytes() == expected.tobytes()
        assert numbers.flags.writeable


@pytest.mark.parametrize("values", [EDGES[:3], NUMBERS])
def test_plain_numbers_take_one_pass(values):
    assert Look.at(values * FEW).numbers is not None  # else `marshal` writes otherwise here
    assert Look.at([1 << 40] * FEW).numbers is None
