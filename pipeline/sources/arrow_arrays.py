"""Decoding Arrow's encodings: dictionaries, run ends and views become plain arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.sources.arrow_types import is_ragged, is_text, widened

if TYPE_CHECKING:
    import pyarrow as pa


def one_array(column: pa.ChunkedArray, kind: pa.DataType) -> Any:
    """A column as one array of a plain type. If chunks are joined, its offsets have 64 bits."""
    import pyarrow as pa

    if column.num_chunks == 1:
        return as_plain(column.chunk(0), kind)
    if column.num_chunks == 0:
        return pa.nulls(0, kind)
    wide = widened(kind)  # 32-bit offsets would overflow past 2 GiB
    return pa.concat_arrays([as_plain(chunk, wide) for chunk in column.chunks])


def as_plain(array: Any, kind: pa.DataType) -> Any:
    """The values of an array, as a type that decodes like the plain type `kind`.

    If the array has such a type already, it is returned as it is. Offsets may be wider than those
    of `kind`, never narrower.
    """
    import pyarrow as pa
    from pyarrow import types

    own = array.type
    if own == kind:
        return array
    if types.is_null(own):
        return pa.nulls(len(array), kind)
    if types.is_dictionary(own):
        return as_plain(array.dictionary, widened(kind)).take(array.indices)
    if types.is_run_end_encoded(own):
        return _runs(array, widened(kind))
    if isinstance(own, pa.BaseExtensionType):
        return as_plain(array.storage, kind)
    if types.is_string_view(own) or types.is_binary_view(own):
        return array.cast(pa.large_string() if is_text(own) else pa.large_binary())
    if types.is_large_string(kind) or types.is_large_binary(kind):
        return array if types.is_large_binary(own) else array.cast(kind)
    if types.is_struct(own) and types.is_struct(kind):
        return _struct(array, kind)
    if types.is_map(own) and types.is_map(kind):
        return _map(array, kind)
    if types.is_fixed_size_list(own) and types.is_fixed_size_list(kind):
        return _fixed_list(array, kind)
    return _list(array, kind) if is_ragged(own) and is_ragged(kind) else array


def check_batch(batch: pa.RecordBatch) -> None:
    """Check that decoding a batch cannot read outside of its buffers, whatever bytes they hold.

    pyarrow's full validation also refuses values that can be read: a date64 within a day, a decimal
    of too many digits, text that is not UTF-8. So only types with offsets or indices get it.

    Raises:
        ArrowInvalid: an offset, length or index is wrong.
    """
    for column in batch.columns:
        column.validate()
        _check(column)


def _check(array: Any) -> None:
    import pyarrow as pa
    from pyarrow import types

    kind = array.type
    if types.is_struct(kind):
        for i in range(kind.num_fields):
            _check(array.field(i))
    elif types.is_fixed_size_list(kind):
        _check(array.values)
    elif types.is_list(kind) or types.is_large_list(kind):
        _check_offsets(array)
        _check(array.values)
    elif types.is_map(kind):
        _check_offsets(array)
        _check(array.keys)
        _check(array.items)
    elif types.is_string(kind) or types.is_large_string(kind):
        array.view(pa.binary() if types.is_string(kind) else pa.large_binary()).validate(full=True)
    elif isinstance(kind, pa.BaseExtensionType):
        _check(array.storage)
    elif kind.num_fields or types.is_dictionary(kind) or not types.is_primitive(kind):
        array.validate(full=not types.is_decimal(kind))


def _check_offsets(array: Any) -> None:
    import pyarrow as pa

    offsets = array.offsets.to_numpy()
    if len(offsets) and (offsets[0] < 0 or (np.diff(offsets) < 0).any()):
        raise pa.ArrowInvalid("offsets of a list are not in order")
    child = array.values if hasattr(array, "values") else array.items
    if len(offsets) and offsets[-1] > len(child):
        raise pa.ArrowInvalid(f"an offset of a list is {offsets[-1]}, of {len(child)} values")


def _runs(array: Any, kind: pa.DataType) -> Any:
    import pyarrow as pa

    places = np.arange(array.offset, array.offset + len(array))
    run = np.searchsorted(array.run_ends.to_numpy(), places, side="right")
    return as_plain(array.values, kind).take(pa.array(run))


def _struct(array: Any, kind: pa.DataType) -> Any:
    import pyarrow as pa

    names = [field.name for field in array.type]
    had = [array.field(names.index(field.name)) for field in kind]
    parts = [as_plain(part, field.type) for part, field in zip(had, kind, strict=True)]
    if names == [f.name for f in kind] and list(map(id, had)) == list(map(id, parts)):
        return array
    fields = [pa.field(field.name, part.type) for field, part in zip(kind, parts, strict=True)]
    return pa.StructArray.from_arrays(parts, fields=fields, mask=_mask(array))


def _map(array: Any, kind: pa.DataType) -> Any:
    import pyarrow as pa

    had = array.keys, array.items
    keys, items = as_plain(had[0], kind.key_type), as_plain(had[1], kind.item_type)
    if keys is had[0] and items is had[1]:
        return array
    return pa.MapArray.from_arrays(_fresh(array.offsets), keys, items, mask=_mask(array))


def _fixed_list(array: Any, kind: pa.DataType) -> Any:
    import pyarrow as pa

    size = array.type.list_size
    had = array.values.slice(array.offset * size, len(array) * size)
    values = as_plain(had, kind.value_type)
    if values is had:
        return array
    return pa.FixedSizeListArray.from_arrays(values, size, mask=_mask(array))


def _list(array: Any, kind: pa.DataType) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    if types.is_list_view(array.type) or types.is_large_list_view(array.type):
        lengths = pc.call_function("list_value_length", [array]).fill_null(0).to_numpy()
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        values = as_plain(array.flatten(), kind.value_type)
        return pa.LargeListArray.from_arrays(pa.array(offsets), values, mask=_mask(array))
    values = as_plain(array.values, kind.value_type)
    wide = types.is_large_list(array.type) or not types.is_large_list(kind)
    if wide and values.type == array.type.value_type:
        return array
    made = pa.LargeListArray if types.is_large_list(kind) else type(array)
    offsets = _fresh(array.offsets)
    if types.is_large_list(kind):
        offsets = offsets.cast(pa.int64())
    return made.from_arrays(offsets, values, mask=_mask(array))


def _mask(array: Any) -> Any:
    return array.is_null() if array.null_count else None


def _fresh(offsets: Any) -> Any:
    # copied, as pyarrow accepts no mask beside offsets that are a slice
    import pyarrow as pa

    return pa.array(offsets.to_numpy())
