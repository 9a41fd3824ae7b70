"""What a value holds, briefly and as plain data: whatever a row may hold, and without raising."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from reprlib import Repr
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CollateError
from pipeline.tree import DEEPEST, children, leaves

TEXT = 2000  # characters of a text that are kept
TOKENS = 64  # of a row's array of numbers
_FIELDS = ("text", "content", "body", "prompt", "caption")  # of a record, its text by first choice


def fields_of(row: Any) -> dict[str, Any]:
    """The fields of a row, brief: name -> what it holds. A row without fields is "value".

    >>> fields_of({"id": 3, "turns": [["user", "hi"], ["assistant", "yes", "no"]]})
    {'id': 3, 'turns': "[['user', 'hi'], ['assistant', 'yes', 'no']]"}
    """
    return {printable(name) or "value": brief(value) for name, value in _leaves(row)}


def brief(value: Any) -> Any:
    """A value as plain data that JSON can hold: texts and arrays are cut, numbers to six digits.

    >>> brief(np.arange(3) / 3), brief(np.datetime64("2024-01-01")), brief([float("nan")])
    ([0.0, 0.333333, 0.666667], '2024-01-01', ['nan'])
    """
    if isinstance(value, str | bytes | bytearray):
        text = as_text(value)
        return _shown(value[:TEXT]) if text is None else text[:TEXT]
    try:
        found = _numbers(value)
        return _shown(value) if found is None else found
    except Exception:  # whatever a value's own code raises
        return _shown(value)


def as_text(record: Any, most: int = TEXT, depth: int = 0) -> str | None:
    """A record's text, with nothing in it that a terminal would obey; None where it has none.

    Args:
        record: any value.
        most: characters that are wanted; there may be more.
        depth: how many containers it lies in; in too many it is not looked for.

    >>> as_text({"id": 3, "text": b"caf\\xc3\\xa9\\x1b[2J"})
    'café\ufffd[2J'
    """
    if isinstance(record, bytes | bytearray):
        text = record[: 4 * most + 4].decode(errors="replace")
        return None if text.count("\ufffd") > len(text) // 10 else printable(text)
    if isinstance(record, str):
        return printable(record[: most + 1])
    parts = dict(children(record) or ()) if depth < DEEPEST else {}
    names = [name for name in _FIELDS if name in parts] + list(parts)
    found = (as_text(parts[name], most, depth + 1) for name in names)
    return next((text for text in found if text is not None), None)


def printable(text: str) -> str:
    """The text without characters that a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def picture(value: Any) -> NDArray[Any] | None:
    """The value as an array, if it looks like a picture: uint8 [h, w] or [h, w, 1, 3 or 4]."""
    try:
        a = None if isinstance(value, str | bytes | bytearray) else _array(value)
    except Exception:  # whatever a value's own code raises
        return None
    return a if a is not None and _is_picture(a) else None


def pictures(row: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """The fields of a row that look like pictures: (name, array)."""
    for name, value in _leaves(row):
        if (a := picture(value)) is not None:
            yield printable(name), a


# ---- containers


def _leaves(row: Any) -> list[tuple[str, Any]]:
    try:
        return list(leaves(row))
    except (CollateError, RecursionError):  # too deep, or it contains itself
        return [("", row)]


# ---- arrays


def _array(value: Any) -> NDArray[Any]:
    if hasattr(value, "detach"):  # a tensor of torch; of its types NumPy lacks some
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(value)


def _is_picture(a: NDArray[Any]) -> bool:
    shaped = a.ndim == 2 or (a.ndim == 3 and a.shape[2] in (1, 3, 4))
    return a.dtype == np.uint8 and shaped and min(a.shape[:2]) >= 4


def _numbers(value: Any) -> Any:
    # numbers and times, as a list that may end with its shape; None for other values
    a = _array(value)
    if _is_picture(a):
        return f"picture {a.dtype}{list(a.shape)}"
    cut = a.reshape(-1)[:TOKENS]
    plain = _plain(cut)
    if plain is None:
        return None
    return plain[0] if not a.ndim else [*plain, *(["…", list(a.shape)] if a.size > TOKENS else [])]


def _plain(a: NDArray[Any]) -> list[Any] | None:
    kind = a.dtype.kind
    if kind in "biu":
        return a.tolist()
    if kind in "mM":
        return [str(x) for x in a]
    if kind == "c":
        return [f"{complex(x):.6g}" for x in a]
    if kind != "f":
        if kind != "V" or a.dtype.names or a.dtype.type is np.void:
            return None
        a = a.astype(np.float32)  # bfloat16 and its like, of ml_dtypes
    rounded = [float(f"{float(x):.6g}") for x in a]
    return [x if np.isfinite(x) else str(x) for x in rounded]


# ---- all else


class _Shown(Repr):
    # `repr`, of as much as is shown, whatever objects' own methods do
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxlong, self.maxother = 8, TEXT, TEXT, TEXT
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = TOKENS
        self.maxdict = self.maxarray = TOKENS

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # more digits than Python writes
            return f"<int of {x.bit_length()} bits>"

    def repr_instance(self, x: Any, level: int) -> str:
        try:
            return repr(x)[:TEXT]
        except Exception as error:
            return f"<{type(x).__name__}, whose repr raises {type(error).__name__}>"


_REPR = _Shown()


def _shown(value: Any) -> str:
    try:
        return printable(_REPR.repr(value)[:TEXT])
    except Exception as error:
        return f"<{type(value).__name__}, which cannot be shown: {type(error).__name__}>"
