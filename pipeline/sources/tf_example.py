"""Parsing tf.train.Example messages without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers


def parse_example(record: bytes) -> dict[str, Any]:
    """The features of a serialized `tf.train.Example`. Use it in `.map` over a `TFRecordSource`.

    Args:
        record: the message's bytes.

    Returns:
        By name, a list of bytes, a float32 array or an int64 array, each of one dimension. A
            feature without values is an empty list of bytes.

    Raises:
        ValueError: the bytes are not an Example, or are a SequenceExample.

    >>> feature = b"\\n\\x02id\\x12\\x05\\x1a\\x03\\n\\x01\\x07"
    >>> parse_example(b"\\n\\r\\n\\x0b" + feature)
    {'id': array([7])}
    """
    found: dict[str, Any] = {}
    try:
        for field, features in _fields(record):
            if field == 2:
                raise ValueError("field 2 is that of a tf.train.SequenceExample, its feature lists")
            for entry in _parts(features, 1) if field == 1 else ():
                name = b"".join(list(_parts(entry, 1))[-1:]).decode()
                found[name] = _feature(b"".join(_parts(entry, 2)))
    except (IndexError, TypeError, ValueError) as e:
        raise ValueError(f"these {len(record)} bytes are no tf.train.Example: {e}") from e
    return dict(sorted(found.items()))  # the order of a map on the wire has no meaning


def _feature(data: bytes) -> list[bytes] | NDArray[Any]:
    kind, values = 1, b""
    for field, value in _fields(data):
        if field in (1, 2, 3):  # of several kinds the last counts; lists of one kind are joined
            kind, values = field, values + value if field == kind else value
    if kind == 2:
        return np.frombuffer(_packed(values), "<f4").astype(np.float32)
    return _varints(_packed(values)) if kind == 3 else list(_parts(values, 1))


def _parts(data: bytes, wanted: int) -> Iterator[bytes]:
    return (value for field, value in _fields(data) if field == wanted)


def _packed(data: bytes) -> bytes:
    # the numbers' bytes are the same whether they are packed or not
    return b"".join(_parts(data, 1))


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(field number, bytes of its value) of each field of a message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            stop = _varint(data, at)[1]
        elif wire == _BYTES:
            size, at = _varint(data, at)
            stop = at + size
        elif wire in (_FIXED32, _FIXED64):
            stop = at + (4 if wire == _FIXED32 else 8)
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if stop > len(data):
            raise ValueError(f"field {tag >> 3} ends at byte {stop} of {len(data)}")
        yield tag >> 3, data[at:stop]
        at = stop


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise ValueError(f"the integer that ends before byte {at} takes more than ten bytes")


def _varints(data: bytes) -> NDArray[np.int64]:
    """Decode varints: seven bits in each byte, lowest first. A byte below 128 ends a number."""
    a: Any = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(a < 128)
    if len(ends) == 0 or ends[-1] != len(a) - 1:
        if len(a):
            raise ValueError("an integer is cut")
        return np.zeros(0, np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(a)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 9:
        raise ValueError("an integer takes more than ten bytes")
    bits = (a & 127).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(bits, starts).view(np.int64)
