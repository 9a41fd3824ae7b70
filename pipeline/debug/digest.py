"""Are two batches equal: sixteen hex digits over their fields, dtypes, shapes and bytes."""

from __future__ import annotations

import hashlib
import struct
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import FeedError
from pipeline.tree import children, leaves


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


def digest(tree: Any) -> str:
    """Sixteen hex digits (BLAKE2b) over a batch: equal for equal values, whatever their layout.

    Covered are leaf names, dtypes (byte order aside), shapes and bits, so -0.0 is not 0.0. Memory
    order, containers' types and the order of their fields are not. Device arrays are fetched.

    Raises:
        FeedError: a leaf holds objects other than str, bytes, numbers, None, arrays and containers
            of these.

    >>> digest({"x": np.arange(3), "y": np.ones(2)}) == digest({"y": np.ones(2), "x": np.arange(3)})
    True
    >>> digest(np.arange(3)) == digest(np.arange(3, dtype=np.int32))
    False
    """
    h = hashlib.blake2b(digest_size=8)
    for name, leaf in sorted(leaves(tree), key=lambda item: item[0]):
        _text(h, b"f", name)
        _object(h, leaf, name)
    return h.hexdigest()


def _text(h: _Hash, tag: bytes, text: str | bytes) -> None:
    # tag and length first: "ab" and "a", "b" must never meet
    body = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    h.update(b"%s%d:" % (tag, len(body)))
    h.update(body)


def _array(h: _Hash, a: NDArray[Any], name: str) -> None:
    if a.dtype.names:  # bytes between the fields of a record are undefined
        _text(h, b"r", repr((a.dtype.names, a.shape)))
        for part in a.dtype.names:
            _array(h, a[part], f"{name}.{part}")
        return
    if a.dtype.kind in "OSUT":
        _text(h, b"o", repr(a.shape))
        for item in a.reshape(-1).tolist():
            _object(h, item, name)
        return
    if a.dtype.byteorder == ">" or (a.dtype.byteorder == "=" and not np.little_endian):
        a = a.astype(a.dtype.newbyteorder("<"))
    # kind V is bfloat16 and its like, which differ in name only
    kind = a.dtype.name if a.dtype.kind == "V" else a.dtype.newbyteorder("<").str
    _text(h, b"a", f"{kind}{a.shape}")
    h.update(np.ascontiguousarray(a).reshape(-1).view(np.uint8))


def _object(h: _Hash, value: Any, name: str) -> None:
    if value is None:
        h.update(b"n")
    elif isinstance(value, np.ndarray | np.generic):
        _array(h, np.asarray(value), name)
    elif isinstance(value, str):
        _text(h, b"s", value)
    elif isinstance(value, bytes | bytearray):
        _text(h, b"b", bytes(value))
    elif isinstance(value, bool | int):
        _text(h, b"i" if not isinstance(value, bool) else b"t", str(int(value)))
    elif isinstance(value, float | complex):
        _text(h, b"d", struct.pack("<dd", complex(value).real, complex(value).imag))
    elif hasattr(value, "__array__"):
        _array(h, np.asarray(value), name)
    else:
        _container(h, value, name)


def _container(h: _Hash, value: Any, name: str) -> None:
    if isinstance(value, list):
        parts = [(str(i), part) for i, part in enumerate(value)]
    else:
        parts = children(value)
    if parts is None:
        raise FeedError(
            f"cannot digest field {name!r}: it holds a {type(value).__name__}. "
            "Drop it in .map, or make it a number, an array, text or bytes."
        )
    _text(h, b"l" if isinstance(value, list) else b"c", str(len(parts)))
    for key, part in sorted(parts, key=lambda item: item[0]) if isinstance(value, dict) else parts:
        _text(h, b"k", key)
        _object(h, part, name)
