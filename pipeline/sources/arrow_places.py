"""Where in memory the rows of an Arrow array lie, as its offsets tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.block import Int64s

Places = Iterator[tuple[Int64s, Int64s]]


def places_of(array: Any, start: Int64s, stop: Int64s) -> Places:
    """Address and size of the bytes of rows `[start, stop)`, a pair for each buffer of values.

    Offsets are followed, so they must have been validated. Nothing is said of their own bytes, nor
    of types whose values lie apart from their rows: dictionaries, views, run ends, unions.

    Args:
        array: a `pyarrow.Array`.
        start, stop: int64[n] each, spans of rows of this array.

    >>> import pyarrow as pa
    >>> words = pa.array(["to", "be", "or", "not"])
    >>> [(address, size)] = places_of(words, np.array([1, 3]), np.array([2, 4]))
    >>> (address - words.buffers()[2].address).tolist(), size.tolist()
    ([2, 6], [2, 3])
    """
    import pyarrow as pa
    from pyarrow import types

    kind = array.type
    if not len(array) or types.is_null(kind):
        return
    if isinstance(kind, pa.BaseExtensionType):
        yield from places_of(array.storage, start, stop)
    elif types.is_struct(kind):
        for i in range(kind.num_fields):
            yield from places_of(array.field(i), start, stop)
    elif types.is_fixed_size_list(kind):
        size = kind.list_size
        first, end = start + array.offset, stop + array.offset
        yield from places_of(array.values, first * size, end * size)
    elif types.is_map(kind):
        offsets = array.offsets.to_numpy().astype(np.int64)
        for part in (array.keys, array.items):
            yield from places_of(part, offsets[start], offsets[stop])
    elif types.is_list(kind) or types.is_large_list(kind):
        offsets = array.offsets.to_numpy().astype(np.int64)
        yield from places_of(array.values, offsets[start], offsets[stop])
    elif _has_bytes(kind):
        _, offsets, data = array.buffers()
        if data is not None:
            wide = types.is_large_string(kind) or types.is_large_binary(kind)
            every = np.frombuffer(offsets, np.int64 if wide else np.int32)
            first, end = (every[at + array.offset].astype(np.int64) for at in (start, stop))
            yield data.address + first, end - first
    elif types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind):
        values, bits = array.buffers()[1], kind.bit_width
        if values is not None:
            first = (start + array.offset) * bits // 8
            end = -(-(stop + array.offset) * bits // 8)
            yield values.address + first, end - first


def frame_of(array: Any) -> Iterator[tuple[int, int]]:
    """Address and size of what tells where an array's values lie: validity, offsets, indices."""
    import pyarrow as pa
    from pyarrow import types

    kind, buffers = array.type, array.buffers()
    if isinstance(kind, pa.BaseExtensionType):
        yield from frame_of(array.storage)
        return
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind)
    tells = 2 if lists or _has_bytes(kind) or types.is_dictionary(kind) else 1
    yield from ((b.address, b.size) for b in buffers[:tells] if b is not None)
    if types.is_struct(kind):
        for i in range(kind.num_fields):
            yield from frame_of(array.field(i))
    elif types.is_map(kind):
        yield from frame_of(array.keys)
        yield from frame_of(array.items)
    elif lists or types.is_fixed_size_list(kind):
        yield from frame_of(array.values)


def _has_bytes(kind: Any) -> bool:
    from pyarrow import types

    short = types.is_string(kind) or types.is_binary(kind)
    return short or types.is_large_string(kind) or types.is_large_binary(kind)
