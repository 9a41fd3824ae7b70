"""Rows as bytes, JSON or tokens. An error says what to map a row to."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ChainError


def as_bytes(row: Any, what: str) -> bytes:
    """A row as a byte record: bytes as they are, text in UTF-8, anything else as JSON.

    Args:
        row: the row.
        what: the kind of file, for messages.

    Raises:
        ChainError: it cannot be converted.

    >>> as_bytes({"id": np.int64(7), "x": np.arange(2)}, "a TFRecord")
    b'{"id": 7, "x": [0, 1]}'
    """
    if isinstance(row, bytes | bytearray | memoryview):
        return bytes(row)
    return in_utf8(row, what) if isinstance(row, str) else as_json(row, what)


def in_utf8(text: str, what: str) -> bytes:
    """Text as UTF-8.

    Raises:
        ChainError: it holds half of a surrogate pair, which UTF-8 cannot encode.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as e:
        raise _cannot(text, what, f"{e}") from e


def as_json(row: Any, what: str) -> bytes:
    """A row as one line of JSON in UTF-8; arrays become lists.

    Raises:
        ChainError: it holds something that JSON cannot express.
    """
    try:
        plain = _plain(row)
        try:
            return json.dumps(plain, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError:  # escaped, JSON can express what UTF-8 cannot encode
            return json.dumps(plain, allow_nan=False).encode()
    except RecursionError as e:
        raise _cannot(row, what, "it is nested too deeply") from e
    except (TypeError, ValueError) as e:
        raise _cannot(row, what, f"{e}") from e


def as_tokens(row: Any, what: str) -> NDArray[Any]:
    """A row as tokens: an array of integers with one axis, itself or in a field "tokens".

    Raises:
        ChainError: it is not.
    """
    found = row.get("tokens") if isinstance(row, dict) else row
    if isinstance(found, np.generic):
        found = np.asarray(found)[None]  # from a source whose records are single tokens
    if not isinstance(found, np.ndarray) or found.ndim != 1 or found.dtype.kind not in "iu":
        raise _cannot(
            row, what, "tokens are integers in an array with one axis", "--tokenizer, or "
        )
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        named = {str(k): _plain(v) for k, v in value.items()}
        if len(named) < len(value):
            raise ValueError(f"of its keys {list(value)} two are the same text")
        return named
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.datetime64 | np.timedelta64 | np.ndarray) and value.dtype.kind in "mM":
        return _moments(value)
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    return value


def _moments(value: Any) -> Any:
    # dates and times in ISO 8601, durations as numbers in their own unit
    if value.dtype.kind == "M":
        text = np.array(np.datetime_as_string(value), object)
    else:
        text = np.array(value, "m8").astype(np.int64).astype(object)
    text[np.isnat(value)] = None
    return text.tolist()


def _cannot(row: Any, what: str, why: str, remedy: str = "") -> ChainError:
    shown = _shown(row)
    return ChainError(
        f"{what} cannot hold the row {shown}: {why}. Give {remedy}--map module:function, which "
        "returns rows that it can hold."
    )


def _shown(row: Any) -> str:
    try:
        shown = repr(row)
    except RecursionError:
        shown = f"a {type(row).__name__} of many levels"
    return f"{shown[:80]}…" if len(shown) > 80 else shown
