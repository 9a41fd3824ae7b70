"""Digests of batches: sixteen hex digits that depend on fields, dtypes, shapes and bytes."""

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
    """Sixteen hex digits (BLAKE2b) of a batch: equal for equal values, whatever their layout.

    Leaf names, dtypes (except byte order), shapes and bits count, so -0.0 differs from 0.0. Memory
    order, types of containers and the order of their fields do not count. Device arrays are
    fetched.

    Raises:
        FeedError: a leaf holds an object other than str, bytes, numbers, None, arrays and
            containers of these.

    >>> digest({"x": np.arange(3), "y": np.ones(2)}) == digest({"y": np.ones(2), "x": np.arange(3)})
    True
    >>> digest(np.arange(3)) == digest(np.arange(3, dtype=np.int32))
    False
    """
    h = hashlib.blake2b(digest_size=8)
    for name, leaf in sorted(leaves(tree), key=lambda item: item[0]):
        h.update(field_head(name))
        update(h, leaf, name)
    return h.hexdigest()


def field_head(name: str) -> bytes:
    """The bytes that are hashed before the leaf of a field.

    >>> field_head("tokens")
    b'f6:tokens'
    """
    return _tagged(b"f", name)


def array_head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The bytes hashed before those of a numeric array: dtype without byte order, and shape.

    >>> array_head(np.dtype(">i4"), (2, 3))
    b'a9:<i4(2, 3)'
    """
    # kind V is bfloat16 and the like, which differ only by name
    kind = dtype.name if dtype.kind == "V" else dtype.newbyteorder("<").str
    return _tagged(b"a", f"{kind}{shape}")


def little(a: NDArray[Any]) -> NDArray[Any]:
    """The array in little-endian order; the same object if it is."""
    if a.dtype.byteorder == ">" or (a.dtype.byteorder == "=" and not np.little_endian):
        return a.astype(a.dtype.newbyteorder("<"))
    return a


def update(h: _Hash, leaf: Any, name: str) -> None:
    """Hash one leaf. Equal values hash equal bytes, and different values different ones.

    Raises:
        FeedError: as for `digest`.
    """
    _object(h, leaf, name)


def _tagged(tag: bytes, text: str | bytes) -> bytes:
    # with tag and length first, "ab" differs from "a", "b"
    body = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return b"%s%d:%s" % (tag, len(body), body)


def _text(h: _Hash, tag: bytes, text: str | bytes) -> None:
    h.update(_tagged(tag, text))


def _array(h: _Hash, a: NDArray[Any], name: str) -> None:
    if a.dtype.names:  # the padding between the fields of a record is undefined
        _text(h, b"r", repr((a.dtype.names, a.shape)))
        for part in a.dtype.names:
            _array(h, a[part], f"{name}.{part}")
        return
    if a.dtype.kind in "OSUT":
        _text(h, b"o", repr(a.shape))
        for item in a.reshape(-1).tolist():
            _object(h, item, name)
        return
    h.update(array_head(a.dtype, a.shape))
    h.update(np.ascontiguousarray(little(a)).reshape(-1).view(np.uint8))


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
