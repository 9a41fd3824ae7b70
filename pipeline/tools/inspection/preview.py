"""Shortening a row to what a person reads, as plain data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.tree import children

LONGEST = 200  # characters of a text, and of bytes that are text
MOST = 16  # elements of an array or list
DEEPEST = 16  # levels of containers
_SPACE = str.maketrans("\n\r\t", "   ")


def preview(value: Any, depth: int = DEEPEST) -> Any:
    """A row or value as plain data for JSON, with long parts cut.

    >>> preview({"id": np.int64(7), "raw": b"\\xff\\x00", "x": np.arange(100)})["raw"]
    'ff00 (2 bytes)'
    """
    parts = children(value)
    if depth == 0 and (parts is not None or isinstance(value, list)):
        return f"… a {type(value).__name__}"
    if parts is not None:
        return {name: preview(part, depth - 1) for name, part in parts}
    if isinstance(value, np.ndarray) and value.size > MOST:
        cut = preview(value.reshape(-1)[:MOST])
        return [*cut, f"… {value.dtype}{list(value.shape)}"]
    if isinstance(value, list):
        cut = [preview(v, depth - 1) for v in value[:MOST]]
        return cut if len(value) <= MOST else [*cut, f"… {len(value):,} in all"]
    if isinstance(value, bytes):
        return _bytes(value)
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "mM":
        return preview(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such numbers
    return value if isinstance(value, int | float | None) else _cut(str(value))


def _bytes(value: bytes) -> str:
    text = value.decode(errors="replace")
    if text.translate(_SPACE).isprintable() and "\N{REPLACEMENT CHARACTER}" not in text:
        return _cut(text)
    shown = value[: LONGEST // 4].hex()
    return f"{shown}{'…' if len(value) > LONGEST // 4 else ''} ({len(value):,} bytes)"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
