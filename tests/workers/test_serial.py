"""Memory of batches is used again when nobody sees it any more, and not before."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader
from pipeline.workers.serial import Buffers

SHAPE, DTYPE = (64, 1024), np.dtype(np.float32)

HOLDERS: dict[str, Callable[[Any], Any]] = {
    "slice": lambda a: a[3:, ::2],
    "transpose": lambda a: a.T,
    "row": lambda a: a[7],
    "other dtype": lambda a: a.view(np.int8),
    "reshape of a slice": lambda a: a[:8].reshape(-1),
    "memoryview": memoryview,
    "array over a memoryview": lambda a: np.asarray(memoryview(a)),
    "subclass": lambda a: a.view(np.matrix),
    "dlpack": lambda a: np.from_dlpack(a),
    "iterator": lambda a: a.flat,
}


def _address(a: Any) -> int:
    return a.__array_interface__["data"][0]


@pytest.mark.parametrize("holder", HOLDERS)
def test_whoever_has_a_view_keeps_the_memory(holder: str) -> None:
    buffers = Buffers(1 << 20)
    array = buffers(SHAPE, DTYPE)
    at, view = _address(array), HOLDERS[holder](array)
    del array
    assert _address(buffers(SHAPE, DTYPE)) != at
    del view
    others = [buffers(SHAPE, DTYPE) for _ in range(3)]
    assert at in [_address(a) for a in others]


def test_torch_keeps_the_memory_of_its_tensors() -> None:
    torch = pytest.importorskip("torch")
    buffers = Buffers(1 << 20)
    array = buffers(SHAPE, DTYPE)
    at, tensor = _address(array), torch.from_numpy(array)[2:]
    del array
    assert _address(buffers(SHAPE, DTYPE)) != at
    del tensor
    assert at in [_address(a) for a in [buffers(SHAPE, DTYPE) for _ in range(3)]]


def test_no_more_is_kept_than_allowed() -> None:
    size = DTYPE.itemsize * 64 * 1024
    buffers = Buffers(size)
    tracemalloc.start()
    try:
        held = [buffers(SHAPE, DTYPE) for _ in range(8)]
        assert tracemalloc.get_traced_memory()[0] >= 8 * size
        held.clear()
        held.append(buffers(SHAPE, DTYPE))
        assert tracemalloc.get_traced_memory()[0] < 2 * size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["<M8[ns]", "<U7", "c16", [("a", "<i4"), ("b", "<f8")]])
def test_memory_serves_any_dtype_without_objects(dtype: Any) -> None:
    array = Buffers(1 << 20)(SHAPE, np.dtype(dtype))
    assert array.shape == SHAPE
    assert array.dtype == np.dtype(dtype)
    assert array.flags.writeable


def test_batches_that_are_kept_stay_as_they_are() -> None:
    ds = Dataset(range(4096), seed=2).shuffle().map(lambda i: np.full(2048, i, np.int32))
    with Loader(ds, 16, steps=64) as loader:
        kept = [batch[:, :2].T for batch in loader]
    with Loader(ds, 16, steps=64) as loader:
        for view, batch in zip(kept, loader, strict=True):
            assert (view == batch[:, :2].T).all()
