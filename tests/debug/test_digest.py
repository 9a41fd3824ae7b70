"""Digest: equal for equal values whatever their layout, different for anything else."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.debug.digest import digest
from pipeline.errors import FeedError

ARRAYS = hnp.arrays(
    st.sampled_from(["i4", ">f8", "?", "u1", "M8[s]", "c8", "f2"]), hnp.array_shapes(min_side=0)
)


@given(ARRAYS)
def test_layout_is_no_part_of_it(a):
    spaced = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)[..., ::2]
    spaced[...] = a
    flipped = a.astype(a.dtype.newbyteorder())
    alike = [a, np.asfortranarray(a), spaced, flipped, a[::-1].copy()[::-1]]
    assert len({digest({"x": b}) for b in alike}) == 1


@given(ARRAYS.filter(lambda a: a.size > 0))
def test_any_bit_is_part_of_it(a):
    b = a.copy()
    b.reshape(-1)[-1:].view(np.uint8)[0] ^= 1
    assert digest(a) != digest(b)


def test_what_differs_differs():
    a = np.zeros(4, np.int32)
    trees = [
        a,
        a.astype(np.uint32),
        a.astype(np.float32),
        a.reshape(2, 2),
        a[:3],
        {"x": a},
        {"y": a},
        {"x": a, "y": a},
        {"x": {"y": a}},
        -a.astype(np.float32),
        np.array(["ab", "c"], object),
        np.array(["a", "bc"], object),
        np.array([b"a", b"bc"], object),
        np.array([None, "bc"], object),
        np.array([1, 2], object),
        np.array([1.0, 2.0], object),
        np.array([True, 2], object),
        np.array([[1], [2]], object),
        [1, 2],
        [[1], 2],
        [[1, 2]],
        1,
        True,
        1.0,
        None,
        "1",
        "",
        {},
    ]
    assert len({digest(t) for t in trees}) == len(trees)


def test_fields_are_known_by_name():
    pair = namedtuple("Pair", "b a")(np.ones(2), np.zeros(2))
    assert digest(pair) == digest({"a": np.zeros(2), "b": np.ones(2)})


def test_objects_nest():
    inner = np.empty(2, object)
    inner[0], inner[1] = [1, np.arange(3)], {"k": (None, b"\0")}
    copy = inner.copy()
    copy[1] = {"k": (None, b"\0")}
    assert digest(inner) == digest(copy)
    copy[0] = [1, np.arange(3)[::-1]]
    assert digest(inner) != digest(copy)


def test_gaps_in_records_do_not_count():
    kind = np.dtype([("a", "u1"), ("b", "i4")], align=True)
    one, two = np.zeros(2, kind), np.frombuffer(bytearray(b"\xff" * 16), kind)
    for part in kind.names or ():
        two[part] = one[part]
    assert one.tobytes() != two.tobytes()
    assert digest(one) == digest(two)


def test_device_arrays_and_their_dtypes():
    jnp = pytest.importorskip("jax.numpy")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert digest(jnp.asarray(a)) == digest(a)
    half = a.astype(ml_dtypes.bfloat16)
    assert digest(jnp.asarray(half)) == digest(half)
    e4, e5 = (np.zeros(2, t) for t in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2))
    assert digest(e4) != digest(e5)


def test_unknown_objects_are_refused_by_field():
    with pytest.raises(FeedError, match=r"cannot digest field 'a\.f': it holds a object"):
        digest({"a": {"f": np.array([object()], object)}})


def test_golden():
    batch = {"x": np.arange(6, dtype=np.int32).reshape(2, 3), "s": np.array(["a", None], object)}
    assert digest(batch) == "425ea1f2c6c40ff8"
