"""A leaf of one row as an array, or an error that says why it cannot be one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import numpy as np

from pipeline.checks import numeric, shown
from pipeline.errors import CollateError
from pipeline.sources.exact import Array, InexactError, exact
from pipeline.tree import DEEPEST, UNMASKED, too_deep

Describe = Callable[[int], str]
UNEQUAL = "Pack, pad in .map, or pass collate=."
DTYPES: dict[type, Any] = {
    bool: np.bool_,
    int: np.int64,
    float: np.float64,
    complex: np.complex128,
}


def called(name: str) -> str:
    """A field in words."""
    return f"field {name!r}" if name else "rows"


def as_array(value: Any, name: str, describe: Describe, i: int) -> Array | None:
    """A leaf as an array; None if it is an object."""
    if value is None or isinstance(value, str | bytes):
        return None
    for kind, dtype in DTYPES.items():
        if isinstance(value, kind) and not isinstance(value, np.generic):
            return _number(value, dtype, name, describe, i)
    if isinstance(value, list):
        return _from_list(value, name, describe, i)
    if isinstance(value, Iterator | AsyncIterator):
        raise CollateError(
            f"cannot stack {called(name)}: {describe(i)} has a {type(value).__name__}, which can "
            "be read only once. Return a list or an array in .map."
        )
    if isinstance(value, np.ma.MaskedArray):
        raise CollateError(f"cannot stack {called(name)}: {describe(i)} has {UNMASKED}")
    if not name and isinstance(value, Mapping) and not isinstance(value, dict):
        # Hugging Face's tokenizers return such
        raise CollateError(
            f"cannot stack rows: {describe(i)} is a {type(value).__name__}, which is no dict. "
            "Return dict(…) of it in .map."
        )
    if isinstance(value, np.generic) or hasattr(value, "__array__"):
        try:
            a = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as e:  # torch's bfloat16, gradients
            raise CollateError(
                f"cannot stack {called(name)}: {describe(i)} has a {type(value).__name__} that "
                f"NumPy cannot hold ({e}). Convert it in .map, or pass collate=."
            ) from e
        return a.astype(object) if a.dtype.kind in "SU" else a
    return None


def _number(value: Any, dtype: Any, name: str, describe: Describe, i: int) -> Array:
    try:
        return np.array(value, dtype)
    except OverflowError as e:
        raise CollateError(
            f"cannot stack {called(name)}: {describe(i)} has {shown(value)}, which "
            "does not fit int64. Give np.uint64 or str in .map, or pass collate=."
        ) from e


def _numbers_only(value: Any, depth: int = 0) -> bool:
    if isinstance(value, list):
        if depth == DEEPEST:
            raise too_deep()
        return all(_numbers_only(part, depth + 1) for part in value)
    return not isinstance(value, str | bytes) and numeric(np.asarray(value).dtype)


def _from_list(value: list[Any], name: str, describe: Describe, i: int) -> Array | None:
    try:
        a = exact(value)
    except InexactError as e:
        raise CollateError(f"cannot stack {called(name)}: {describe(i)} has {e}") from None
    except ValueError as e:
        if not _numbers_only(value):
            return None
        raise CollateError(
            f"cannot stack {called(name)}: {describe(i)} has a list whose "
            f"parts differ in length. {UNEQUAL}"
        ) from e
    return a if numeric(a.dtype) else None
