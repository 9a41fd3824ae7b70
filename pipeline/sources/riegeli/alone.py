"""A record in a group of its own, read by itself: what `decode` does for many, without arrays."""

from __future__ import annotations

from pipeline.sources.riegeli.chunks import HEADER, SIMPLE
from pipeline.sources.riegeli.codecs import NAMES


def record_alone(chunk: bytes) -> bytes | None:
    """The record of a chunk that holds one; None if it is any other, or `decode` would complain.

    Args:
        chunk: its header and its data, no block's header among them.
    """
    numbers = [int.from_bytes(chunk[i : i + 8], "little") for i in (8, 24, 32)]
    size, kind, decoded = numbers
    data = chunk[HEADER : HEADER + size]
    if kind != 1 << 8 | SIMPLE or len(data) < size or size < 2:
        return None
    lengths, at = _varint(data, 1)
    name, at = NAMES.get(data[0]), at + lengths
    if name == "none":
        return data[at:] if len(data) - at == decoded else None
    given, at = _varint(data, at)
    if name is None or given != decoded or not decoded:
        return None
    import pyarrow as pa

    try:
        found = pa.Codec(name).decompress(data[at:], decoded, asbytes=True)
    except (OSError, ValueError, MemoryError):
        return None
    return found if len(found) == decoded else None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    # the number that begins there and where it ends; past the end it is as good as damaged
    value = shift = 0
    for byte in data[at : at + 9]:
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
    return len(data) + 1, at
