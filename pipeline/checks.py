"""Checks of arguments, done once at the edge; the error shows the value."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.errors import ChainError, PipelineError

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 20
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


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
        beyond = number and value > most  # of the usual range only who leaves it wants to know
        upper = "on" if most == 1 << 62 and not beyond else f"to {most}"
        bounded = least > -(1 << 62) or (number and not least <= value <= most)
        span = f" from {least} {upper}" if bounded else ""
        raise error(f"{name}={shown(value)}: give a whole number{span}")
    return int(value)


def byte_count(
    name: str, value: Any, least: int = 0, error: type[PipelineError] = ChainError
) -> int:
    """Bytes, from a whole number or words like "512MiB".

    >>> byte_count("ahead", "512MiB"), byte_count("ahead", 1000), byte_count("gap", "1.5 KiB")
    (536870912, 1000, 1536)
    """
    found = value
    if isinstance(value, str):
        unit = value.lstrip("0123456789. ")
        try:
            found = int(float(value.removesuffix(unit)) * _UNITS[unit])
        except (ValueError, KeyError, OverflowError):
            found = None
    if isinstance(found, bool) or not isinstance(found, int | np.integer) or found < least:
        raise error(f'{name}={shown(value)}: give bytes, or a string like "512MiB"')
    return int(found)


def function(name: str, value: Any) -> Callable[..., Any]:
    """The value, if it can be called."""
    if not callable(value):
        raise ChainError(f"{name}({shown(value)}): give a function, not {type(value).__name__}")
    return value


def flag(name: str, value: Any) -> bool:
    """The value, if it is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ChainError(f"{name}={shown(value)}: give True or False")
    return bool(value)


def numeric(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is of numbers: NumPy's own, or others' such as bfloat16 and float8.

    >>> numeric(np.dtype(np.int8)), numeric(np.dtype(object)), numeric(np.dtype([("x", np.int8)]))
    (True, False, False)
    """
    # kind V is structured and raw bytes too, whose scalars are np.void
    return dtype.kind in "biufc" or (dtype.kind == "V" and not issubclass(dtype.type, np.void))


def shown(value: Any, most: int = 200) -> str:
    """A value for a message: its repr, cut where it is long or fails.

    >>> shown([1, 2]), shown("x" * 1000, 12)
    ('[1, 2]', "'xxxxxxxxxx…")
    """
    try:
        text = _SHORT.repr(value)
    except Exception:  # of another's class
        text = f"<{type(value).__name__}>"
    return text if len(text) <= most else f"{text[: most - 1]}…"
