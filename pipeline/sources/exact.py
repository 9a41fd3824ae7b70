"""Python values as NumPy arrays that hold exactly these values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks import shown
from pipeline.tree import UNMASKED

Array = NDArray[Any]
_WHOLE = 2.0**53  # beyond this, float64 does not hold every whole number


class InexactError(ValueError):
    """An array would not hold what it is made of; the message goes on from "row 3 has"."""


def objects(values: list[Any]) -> NDArray[np.object_]:
    """object[n] of values that NumPy is not to look into."""
    out = np.empty(len(values), object)
    for i, value in enumerate(values):  # assigned at once, equal lists would become a second axis
        out[i] = value
    return out


def exact(value: Any) -> Array:
    """`np.asarray(value)`, of a list of numbers, nested or not, or of what has an array.

    Raises:
        InexactError: the array would lose a mask, or digits of a number: a list of whole numbers
            from 2**63 on beside smaller ones becomes float64, and so does a column of whole numbers
            and nulls of pyarrow, pandas or Polars.
        ValueError: parts of a list differ in length.

    >>> exact([1, 2.5])
    array([1. , 2.5])
    >>> exact([2**63 + 1, 1])
    Traceback (most recent call last):
    pipeline.sources.exact.InexactError: 9223372036854775809, which float64 does not hold. Give
    arrays of np.uint64 or of np.int64, or text.
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
    if made.dtype.kind == "f" and _holds_integers(value) and (np.abs(made) >= _WHOLE).any():
        raise InexactError(
            f"nulls beside integers that {made.dtype}, which NumPy makes of both, does not hold. "
            "Fill the nulls, or give the whole table."
        )
    return made


def _holds_integers(value: Any) -> bool:
    # by its own account, though the array that NumPy makes of it is one of floats
    kind = getattr(value, "dtype", getattr(value, "type", None))
    return not isinstance(value, list) and str(kind).lower().startswith(("int", "uint"))


def _numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _numbers(part)
    elif hasattr(value, "__array__"):
        yield from np.asarray(value).ravel().tolist()
    else:
        yield value
