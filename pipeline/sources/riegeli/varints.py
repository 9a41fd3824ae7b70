"""Varints (seven bits in each byte, least significant first), decoded many at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s

Bytes = NDArray[np.uint8]

_MOST = 9  # bytes of a value below 2**63


def all_of(data: Bytes) -> Int64s:
    """The varints that fill `data`, end to end.

    Raises:
        ValueError: the last one is incomplete, or one is 2**63 or more.

    >>> all_of(np.array([5, 0x80, 1, 0], np.uint8))
    array([  5, 128,   0])
    """
    ends = np.flatnonzero(data < 0x80)
    if len(data) and (not len(ends) or ends[-1] != len(data) - 1):
        raise ValueError("a number does not end")
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends - starts + 1
    if len(lengths) and lengths.max() > _MOST:
        raise ValueError("a number is too long")
    values = (data[starts] & 0x7F).astype(np.int64)
    for k in range(1, int(lengths.max(initial=1))):
        more = np.flatnonzero(lengths > k)
        values[more] |= (data[starts[more] + k] & 0x7F).astype(np.int64) << (7 * k)
    return values


def at(data: Bytes, places: Int64s) -> tuple[Int64s, Int64s]:
    """The varint at each of some places, and where each ends.

    Returns:
        (values, ends), int64[n] each; the value is -1 where a varint is incomplete.

    >>> values, after = at(np.array([5, 0x80, 1, 0x80], np.uint8), np.array([0, 1, 3]))
    >>> values.tolist(), after[:2].tolist()
    ([5, 128, -1], [1, 3])
    """
    byte = _byte(data, places)
    values, after = (byte & 0x7F).astype(np.int64), places + 1
    left = np.flatnonzero(byte >= 0x80)
    for k in range(1, _MOST):
        if not len(left):
            return values, after
        byte = _byte(data, after[left])
        values[left] |= (byte & 0x7F).astype(np.int64) << (7 * k)
        after[left] += 1
        left = left[byte >= 0x80]
    values[left] = -1
    return values, after


def _byte(data: Bytes, places: Int64s) -> Bytes:
    # bytes beyond the end count as continued
    return np.where(places < len(data), data.take(places, mode="clip"), np.uint8(0x80))


def fields(message: bytes) -> dict[int, Any]:
    """The fields of a protocol buffer by number, as int or bytes; the last one of each number.

    Raises:
        ValueError: it is not a protocol buffer.

    >>> fields(bytes([0x08, 0x80, 0x01, 0x12, 2]) + b"hi")
    {1: 128, 2: b'hi'}
    """
    return dict(_fields(message))


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    place = 0
    while place < len(message):
        tag, place = _one(message, place)
        size = {1: 8, 5: 4}.get(tag & 7, 0)
        if tag & 7 == 0:
            value, place = _one(message, place)
            yield tag >> 3, value
            continue
        if tag & 7 == 2:
            size, place = _one(message, place)
        elif not size:
            raise ValueError(f"wire type {tag & 7} is unknown")
        if place + size > len(message):
            raise ValueError("a field does not end")
        yield tag >> 3, message[place : place + size]
        place += size


def _one(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message) and shift < 70:
        byte = message[place]
        value, place, shift = value | (byte & 0x7F) << shift, place + 1, shift + 7
        if byte < 0x80:
            return value, place
    raise ValueError("a number does not end")
