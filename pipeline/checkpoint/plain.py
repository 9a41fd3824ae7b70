"""What checkpointers made of a state's numbers and lists, made plain again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.errors import StateError


def plain(state: Any) -> Any:
    """A copy of a state with numbers and lists of Python's.

    Checkpoints of arrays, and functions that are mapped over them, give numbers back as arrays
    without dimensions, and lists of numbers as arrays, be they NumPy's, jax's or torch's.

    Raises:
        StateError: it is nested without end, or an array cannot be read here.

    >>> plain({"rows": np.array(8), "anchor": (np.int64(0), np.array([1, 2]))})
    {'rows': 8, 'anchor': [0, [1, 2]]}
    """
    try:
        return _plain(state)
    except (RecursionError, RuntimeError, TypeError, ValueError) as e:
        raise StateError(
            f"the state is damaged ({str(e)[:200]}): it holds what is no plain data. Use another, "
            "or restore it on the CPU."
        ) from e


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return np.asarray(value).tolist() if hasattr(value, "__array__") else value
