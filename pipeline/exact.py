"""Python values as NumPy arrays that hold exactly these values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks import numeric, shown
from pipeline.tree import UNMASKED

Array = NDArray[Any]
Empty = Callable[[tuple[int, ...], np.dtype[Any]], Array]  # makes the arrays that are filled
PLAIN: dict[type, Any] = {  # the dtypes of Python's numbers
    bool: np.bool_,
    int: np.int64,
    float: np.float64,
    complex: np.complex128,
}
_WHOLE = 2.0**53  # beyond this, float64 does not hold every whole number


class InexactError(ValueError):
    """An array would not hold what it is made of; the message goes on from "row 3 has"."""


def objects(values: list[Any]) -> NDArray[np.object_]:
    """object[n] of values that NumPy is not to look into."""
    out = np.empty(len(values), object)
    for i, value in enumerate(values):  # assigned at once, equal lists would become a second axis
        out[i] = value
    return out


def stacked(values: list[Any], kind: type, empty: Empty = np.empty) -> Array | None:
    """Values of one type as an array `[n, ...]`, or None where they need a closer look.

    Numbers of one type and arrays of one shape and dtype stack; text, bytes and None are objects.

    >>> stacked([1, 2], int), stacked(["a", "bc"], str)
    (array([1, 2]), array(['a', 'bc'], dtype=object))
    """
    if kind is np.ndarray:
        shape, dtype = values[0].shape, values[0].dtype
        alike = shape and dtype.kind not in "SU"
        if alike and all(v.shape == shape and v.dtype == dtype for v in values):
            out = empty((len(values), *shape), np.result_type(dtype, dtype))
            np.concatenate(values, out=out.reshape(len(values) * shape[0], *shape[1:]))
            return out
    elif kind in (bool, float):
        return np.fromiter(values, PLAIN[kind], len(values))  # quicker than np.array
    elif issubclass(kind, np.generic) and numeric(np.dtype(kind)):
        return np.array(values, kind)
    elif kind is int:
        try:
            return np.fromiter(values, np.int64, len(values))
        except OverflowError:
            return None
    return objects(values) if kind in (str, bytes, type(None)) else None


def exact(value: Any) -> Array:
    """`np.asarray(value)`, of a list of numbers, nested or not, or of what has an array.

    Raises:
        InexactError: the array would lose a mask, or digits of a number: a list of whole numbers
            from 2**63 on beside smaller ones becomes float64.
        ValueError: parts of a list differ in length.

    >>> exact([1, 2.5])
    array([1. , 2.5])
    >>> exact([2**63 + 1, 1])
    Traceback (most recent call last):
    pipeline.exact.InexactError: 9223372036854775809, which float64 does not hold. Give arrays of
    np.uint64 or of np.int64, or text.
    """
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray) or (
        isinstance(value, list) and np.ma.MaskedArray in set(map(type, value))
    ):
        raise InexactError(UNMASKED)
    made = np.asarray(value)
    if made.dtype.kind in "fc" and isinstance(value, list) and (np.abs(made) >= _WHOLE).any():
        for number, held in zip(_numbers(value), made.ravel().tolist(), strict=False):
            if isinstance(number, int) and number != held:
                raise InexactError(
                    f"{shown(number)}, which {made.dtype} does not hold. Give arrays of np.uint64 "
                    "or of np.int64, or text."
                )
    return made


def _numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _numbers(part)
    elif hasattr(value, "__array__"):
        yield from np.asarray(value).ravel().tolist()
    else:
        yield value
