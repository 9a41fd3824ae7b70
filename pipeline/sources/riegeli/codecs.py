"""Decompressing the parts of chunks, many in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.sources.riegeli.varints import Bytes

NAMES = {0: "none", ord("b"): "brotli", ord("z"): "zstd", ord("s"): "snappy"}

Damaged = Callable[[int, str], Exception]


def unpack(
    raw: bytes, codecs: Bytes, begins: Int64s, ends: Int64s, sizes: Int64s, damaged: Damaged
) -> tuple[bytes, Int64s]:
    """Decompress parts of `raw`.

    Args:
        raw: compressed bytes.
        codecs: uint8[n], a key of NAMES for each part.
        begins, ends: int64[n], where each part lies in raw.
        sizes: int64[n], decompressed bytes of each part.
        damaged: makes the error for part i, with a reason.

    Returns:
        The decompressed bytes, and int64[n], where each part begins in them.
    """
    kinds = sorted(set(codecs.tolist()))
    if kinds == [0]:
        return raw, begins
    flat: list[bytes] = []
    starts, base = np.zeros(len(sizes), np.int64), 0
    for kind in kinds:
        which = np.flatnonzero(codecs == kind)
        view = memoryview(raw)
        spans = zip(begins[which].tolist(), ends[which].tolist(), strict=True)
        parts = [view[a:b] for a, b in spans]
        starts[which] = base + np.cumsum(sizes[which]) - sizes[which]
        flat.append(_unpacked(NAMES[kind], parts, sizes[which], which, damaged))
        base += len(flat[-1])
    return flat[0] if len(flat) == 1 else b"".join(flat), starts


def _unpacked(
    name: str, parts: list[memoryview], sizes: Int64s, which: Int64s, damaged: Damaged
) -> bytes:
    if name == "none":
        return b"".join(parts)
    if name == "zstd" and len(parts) > 1:
        together = _stream(parts, int(sizes.sum()))
        if together is not None:
            return together
    import pyarrow as pa

    codec = pa.Codec(name)
    found: list[bytes] = []
    for part, size, i in zip(parts, sizes.tolist(), which.tolist(), strict=True):
        found.append(_one(codec, part, size, lambda reason, i=i: damaged(i, reason)))
    return b"".join(found)


def _stream(parts: list[memoryview], size: int) -> bytes | None:
    """Decompress frames as one stream, six times as fast as one by one; None if one is damaged."""
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.BufferReader(b"".join(parts)), "zstd") as stream:
            data = stream.read(size)
            return data if len(data) == size and not stream.read(1) else None
    except OSError:
        return None


def _one(codec: Any, part: memoryview, size: int, damaged: Callable[[str], Exception]) -> bytes:
    if size == 0:
        return b""
    try:
        data = codec.decompress(part, size, asbytes=True)
    except (OSError, ValueError, MemoryError) as e:
        raise damaged(f"it does not unpack: {e}") from e
    if len(data) != size:
        raise damaged(f"it unpacks to {len(data)} bytes, not {size}")
    return data
