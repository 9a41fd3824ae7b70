"""Whether two records are equal; and how to overwrite one, to see whether others share it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from pipeline.tree import children


def same(a: Any, b: Any) -> bool:
    """Whether two records are equal: structure, types, dtypes, shapes and values; NaN equals NaN.

    >>> same({"x": np.array([1.0, np.nan])}, {"x": np.array([1.0, np.nan])}), same(1, 1.0)
    (True, False)
    """
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        return _same_arrays(np.asarray(a), np.asarray(b))
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    parts, others = children(a), children(b)
    if parts is not None and others is not None:
        return [k for k, _ in parts] == [k for k, _ in others] and all(
            same(v, w) for (_, v), (_, w) in zip(parts, others, strict=True)
        )
    if hasattr(a, "__array__"):
        return _same_arrays(np.asarray(a), np.asarray(b))
    if type(a).__eq__ is object.__eq__:  # it compares by identity, so its attributes are compared
        return a is b or same(getattr(a, "__dict__", {}), getattr(b, "__dict__", {}))
    return bool(a == b) or (a != a and b != b)


def _same_arrays(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.hasobject:
        return all(map(same, a.ravel().tolist(), b.ravel().tolist()))
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fcmM"))


def scribble(value: Any) -> None:
    """Overwrite everything in a value that can be written to."""
    if isinstance(value, np.ndarray):
        _scribble_array(value)
    elif isinstance(value, list):
        for part in value:
            scribble(part)
        value.clear()
    elif (parts := children(value)) is not None:
        for _, part in parts:
            scribble(part)
        if isinstance(value, dict):
            value.clear()
        elif dataclasses.is_dataclass(value) and parts and not _is_frozen(value):
            setattr(value, parts[0][0], None)


def _scribble_array(a: np.ndarray) -> None:
    if a.dtype.hasobject:
        for part in a.ravel().tolist():
            scribble(part)
    if not a.flags.writeable:
        return
    if a.dtype.kind == "O":
        a[...] = None
    elif a.dtype.kind == "b":
        a[...] = ~a
    elif not a.dtype.hasobject and a.size:
        other = np.frombuffer(bytes(255 - x for x in a.tobytes()), a.dtype)
        a[...] = other.reshape(a.shape)


def _is_frozen(value: Any) -> bool:
    return type(value).__dataclass_params__.frozen
