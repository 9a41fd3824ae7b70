"""Parsing tf.train.Example and SequenceExample messages without TensorFlow."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
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
    with _parsing(record, "Example"):
        if any(field == 2 for field, _ in _fields(record)):
            raise ValueError(
                "field 2 is that of a tf.train.SequenceExample, its feature lists, which "
                "parse_sequence_example reads"
            )
        return {name: _feature(data) for name, data in _entries(record, 1)}


def parse_sequence_example(record: bytes) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Context and feature lists of a serialized `tf.train.SequenceExample`, for `.map`.

    Args:
        record: the message's bytes.

    Returns:
        The context, as `parse_example` returns features; and by name a list of features, one for
            each step of a sequence.

    Raises:
        ValueError: the bytes are not a SequenceExample.

    >>> step = b"\\n\\x05\\x1a\\x03\\n\\x01\\x07"
    >>> parse_sequence_example(b"\\x12\\x16\\n\\x14\\n\\x02id\\x12\\x0e" + step + step)
    ({}, {'id': [array([7]), array([7])]})
    """
    with _parsing(record, "SequenceExample"):
        context = {name: _feature(data) for name, data in _entries(record, 1)}
        steps = {name: list(map(_feature, _parts(data, 1))) for name, data in _entries(record, 2)}
        return context, steps


@contextmanager
def _parsing(record: bytes, kind: str) -> Generator[None]:
    try:
        yield
    except (IndexError, TypeError, ValueError) as e:
        raise ValueError(f"these {len(record)} bytes are no tf.train.{kind}: {e}") from e


def _entries(record: bytes, number: int) -> list[tuple[str, bytes]]:
    """Names and values of the maps that a field holds, by name: their order has no meaning."""
    found: dict[str, bytes] = {}
    for features in _parts(record, number):
        for entry in _parts(features, 1):
            name = b"".join(list(_parts(entry, 1))[-1:]).decode()
            found[name] = b"".join(_parts(entry, 2))  # of several entries the last counts
    return sorted(found.items())


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
