"""Whether an argument is what it should be: checked once at the edge, its value in the error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.errors import ChainError, PipelineError


def whole(
    name: str,
    value: Any,
    least: int,
    error: type[PipelineError] = ChainError,
    most: int = 1 << 62,
) -> int:
    """The value as an int, if it is a whole number in range: no bool, no float.

    >>> whole("batch_size", np.int64(4), 1)
    4
    """
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        upper = "on" if most == 1 << 62 else f"to {most}"
        raise error(f"{name}={value!r}: give a whole number from {least} {upper}")
    return int(value)


def function(name: str, value: Any) -> Callable[..., Any]:
    """The value, if it can be called."""
    if not callable(value):
        raise ChainError(f"{name}({value!r}): give a function, not {type(value).__name__}")
    return value
