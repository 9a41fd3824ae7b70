"""pad_to: ragged rows as one batch with masks; padding_share: how much of a batch is padding."""

from __future__ import annotations

from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Dataset, Loader, Threads, pad_to, padding_share
from pipeline.errors import BatchError, CollateError


def ragged(row: Any) -> Any:
    n = int(row["id"]) % 5
    return {"id": row["id"], "x": np.arange(n), "y": np.full((n, 2), 1.5, np.float32), "s": "ab"}


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6),
    st.none() | st.integers(9, 12),
    st.integers(1, 5),
    st.integers(-1, 1),
)
def test_rows_are_whole_where_the_mask_says(sizes, length, multiple, value):
    rows = [{"x": np.arange(n) + 1, "n": n} for n in sizes]
    batch = pad_to(length, multiple=multiple, value=value)(rows)
    width = length or max(1, -(-max(sizes) // multiple)) * multiple
    assert list(batch) == ["x", "x_mask", "n"]
    assert batch["x"].shape == batch["x_mask"].shape == (len(sizes), width)
    assert batch["n"].tolist() == sizes
    for row, mask, n in zip(batch["x"], batch["x_mask"], sizes, strict=True):
        assert row.tolist() == [*range(1, n + 1), *[value] * (width - n)]
        assert mask.tolist() == [True] * n + [False] * (width - n)
    assert padding_share(batch) == 1 - sum(sizes) / (len(sizes) * width)


def test_fields_of_every_kind():
    rows = [ragged({"id": i}) | {"l": [1.0] * i, "k": np.ones(2)} for i in (3, 1)]
    lists, rows = rows, [{k: v for k, v in row.items() if k != "l"} for row in rows]
    batch = pad_to(fields=["x", "y", "l"], value={"x": -1})(lists)
    assert batch["x"].tolist() == [[0, 1, 2], [0, -1, -1]]
    assert batch["y"].shape == (2, 3, 2)
    assert batch["y"].dtype == np.float32
    assert batch["l"].tolist() == [[1.0] * 3, [1.0, 0.0, 0.0]]
    assert batch["k"].shape == (2, 2)
    assert "k_mask" not in batch
    assert batch["s"].tolist() == ["ab", "ab"]
    each = pad_to({"x": 4, "y": 5})(rows)
    assert (each["x"].shape, each["y"].shape, each["k"].shape) == ((2, 4), (2, 5, 2), (2, 2))
    bare = pad_to(4)([np.arange(2), np.arange(3)])
    assert bare["tokens_mask"].sum(1).tolist() == [2, 3]
    assert pad_to()([{"x": np.zeros(0)}])["x"].shape == (1, 1)  # no array has an axis of 0


@pytest.mark.parametrize("n", [1, 3, 7, 8])
def test_every_remainder_rule(n):
    ds = Dataset({"id": np.arange(n)}).map(ragged)
    for counted in (False, True):
        used = ds.bucket("x", [1, 2], block=4) if counted else ds
        for workers in (0, Threads(2)):
            kept, dropped, padded = (
                list(Loader(used, 4, remainder=r, collate=pad_to(8), workers=workers))
                if (r, n // 4) != ("drop", 0)  # a pass without a batch is refused
                else []
                for r in ("keep", "drop", "pad")
            )
            assert sorted(i for b in kept for i in b["id"].tolist()) == list(range(n))
            assert [b["x"].shape for b in dropped] == [(4, 8)] * (n // 4)
            assert [b["x"].shape for b in padded] == [(4, 8)] * -(-n // 4)
            last = padded[-1]
            assert not last["x_mask"][~last["mask"]].any()
            found = [i for b in padded for i in b["id"][b["mask"]].tolist()]
            assert sorted(found) == list(range(n))
            for b in padded:
                assert b["x_mask"].sum(1)[b["mask"]].tolist() == (b["id"][b["mask"]] % 5).tolist()


def test_a_host_without_rows_has_the_fields_of_the_others():
    ds = Dataset({"id": np.arange(1)}).map(ragged)
    batches = [
        next(Loader(ds, 4, host=h, hosts=2, remainder="pad", collate=pad_to(6))) for h in (0, 1)
    ]
    assert [b["mask"].tolist() for b in batches] == [[True, False], [False, False]]
    shapes = [{k: (v.shape, v.dtype) for k, v in b.items()} for b in batches]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("options", "rows", "message"),
    [
        (
            {"length": 2},
            [{"x": np.arange(2)}, {"x": np.arange(3)}],
            "'x' to 2: row 1 has 3.*larger",
        ),
        ({}, [{"x": np.arange(2)}, {"x": np.arange(3.0)}], r"'x'.*float64\[3\], int64\[2\]"),
        ({}, [{"x": np.zeros((2, 3))}, {"x": np.zeros((2, 4))}], "Only the first axis"),
        ({"fields": ["s"]}, [{"s": "a"}], "cannot pad field 's'"),
        ({"fields": ["y"]}, [{"x": np.arange(2)}], r"no fields \['y'\]: rows have \['x'\]"),
        ({}, [{"s": "a"}], "no fields that are arrays"),
        ({}, [{"x": np.arange(2), "x_mask": 1}], r"mask to each of \['x'\]"),
        ({}, [{"x": np.arange(2), "i": 1}, {"x": np.arange(2)}], "differ|fields"),
    ],
)
def test_what_does_not_pad_is_named(options, rows, message):
    with pytest.raises(CollateError, match=message):
        pad_to(**options)(rows)


def test_options_are_checked():
    given: list[Any] = [{"length": 0}, {"length": {"x": 0}}, {"length": 2.5}, {"multiple": 0}]
    for options in given:
        with pytest.raises(BatchError, match="give a whole number from 1"):
            pad_to(**options)


def test_a_collate_that_was_not_made_is_named():
    with pytest.raises(BatchError, match="call it, as in"):
        next(Loader(Dataset([np.ones(2)]), 1, collate=pad_to))  # pyright: ignore[reportArgumentType]


def test_padding_share_wants_to_know_what_is_padding():
    packed = Dataset([np.ones(3), np.ones(2)]).pack(4)
    assert padding_share(next(iter(Loader(packed, 2)))) == 3 / 8
    with pytest.raises(CollateError, match=r"\['x'\] are neither"):
        padding_share({"x": np.ones((2, 2))})


def test_several_lengths_are_bounds_of_which_the_smallest_fits():
    pad = pad_to([4, 16])
    for longest, width in ((1, 4), (4, 4), (5, 16), (16, 16)):
        batch = pad([np.arange(1), np.arange(longest)])
        assert batch["tokens"].shape == batch["tokens_mask"].shape == (2, width)
    with pytest.raises(CollateError, match="cannot pad field 'tokens' to 16: row 1 has 17"):
        pad([np.arange(1), np.arange(17)])
    by_field = pad_to({"x": (2, 8), "y": 4})([{"x": np.arange(3), "y": np.arange(1)}])
    assert by_field["x"].shape == (1, 8)
    assert by_field["y"].shape == (1, 4)
    for widths in ([np.int64(4), np.uint8(16)], np.array([4, 16])):
        assert pad_to(cast(Any, widths)) == pad_to([4, 16])
    wrong: list[Any] = [[], [16, 4], [4, 4], [0, 4], [True, 4], [4.0], np.array(4.0)]
    for bad in wrong:
        with pytest.raises(BatchError, match=r"pad_to"):
            pad_to(bad)
    with pytest.raises(BatchError, match="makes no collate"):
        pad_to([{"x": 1}])  # pyright: ignore[reportArgumentType]


def test_bucketed_rows_are_padded_to_their_bucket():
    rows = [np.ones(n) for n in (3, 120, 100, 400, 5, 128)]
    ds = Dataset(rows).bucket(len, [128, 512])
    for batch in Loader(ds, 1, collate=pad_to([128, 512])):
        length = int(batch["tokens_mask"].sum())
        assert batch["tokens"].shape == (1, 128 if length <= 128 else 512)


def test_masks_are_padded_and_get_none():
    rows = [
        {"tokens": np.arange(n), "loss_mask": np.ones(n, bool), "mask": [1] * n} for n in (2, 3)
    ]
    batch = pad_to(4)(rows)
    assert list(batch) == ["tokens", "tokens_mask", "loss_mask", "mask"]
    assert batch["loss_mask"].sum(1).tolist() == batch["tokens_mask"].sum(1).tolist() == [2, 3]
    assert batch["mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    half = {"tokens": np.ones((1, 4)), "loss_mask": np.array([[1, 0, 0, 0]])}
    with pytest.raises(CollateError, match="no field tells padding apart"):
        padding_share(half)
    assert padding_share({**half, "tokens_mask": np.array([[1, 1, 0, 0]])}) == 0.5


def test_bfloat16_is_padded():
    batch = pad_to(4)([np.ones(3, ml_dtypes.bfloat16)])
    assert batch["tokens"].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    "rows", [[{"x": [1]}, {"x": [2], "y": [7]}], [{"x": [1], "y": [1]}, {"x": [2]}]]
)
def test_rows_of_other_fields_are_refused_in_either_order(rows):
    with pytest.raises(CollateError, match="row 1 has"):
        pad_to(2)(rows)


def test_empty_lists_have_no_dtype_of_their_own():
    assert pad_to(2)([[], [1]])["tokens"].tolist() == [[0, 0], [1, 0]]
    assert pad_to(2)([np.zeros(0, np.int8), []])["tokens"].dtype == np.int8
    with pytest.raises(CollateError, match="dtype is unknown"):
        pad_to(2)([[], []])


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.uint16, -100),
        (np.uint16, 65_536),
        (bool, -100),
        (np.int64, 0.5),
        (np.int64, float("nan")),
        (np.int64, None),
        (np.int64, "x"),
        (np.float16, 2.0**40),
        (np.float32, 10**400),
    ],
)
def test_a_value_that_the_field_does_not_hold_is_refused(dtype, value):
    with pytest.raises(CollateError, match="does not hold"):
        pad_to(3, value=value)([np.zeros(2, dtype)])


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(np.float16, 0.1), (np.float32, -np.inf), (np.float64, np.nan), (np.uint8, 255), (bool, True)],
)
def test_a_value_that_the_field_holds_pads(dtype, value):
    padded = pad_to(3, value=value)([np.zeros(2, dtype)])["tokens"]
    assert np.array_equal(
        padded[:, 2], np.array([value]).astype(dtype), equal_nan=dtype is not bool
    )


def test_numbers_beside_arrays_are_refused():
    with pytest.raises(CollateError, match="Only the first axis"):
        pad_to(2)([{"x": [1]}, {"x": 5}])
