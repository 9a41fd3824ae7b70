"""What an Arrow column is in NumPy; decided by its type alone, never by its values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Columns, Int64s

if TYPE_CHECKING:
    import pyarrow as pa


class NullAt(Exception):
    """A null where NumPy has none: an integer or boolean."""

    def __init__(self, column: str, row: int, kind: str) -> None:
        super().__init__(column, row, kind)
        self.column, self.row, self.kind = column, row, kind

    def above(self, row: int) -> NullAt:
        """The same, as seen from the column that holds this one as lists."""
        return NullAt(self.column, row, self.kind)


def plain_table(table: pa.Table) -> pa.Table:
    """The table with dictionaries decoded, extension types stored plainly, nullable throughout."""
    import pyarrow as pa

    fields = [pa.field(field.name, _plain(field.type)) for field in table.schema]
    columns = [
        column if column.type == field.type else column.cast(field.type)
        for column, field in zip(table.columns, fields, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _plain(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(kind):
        return _plain(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if types.is_struct(kind):
        return pa.struct([pa.field(f.name, _plain(f.type)) for f in kind])
    # one name for what lists hold: files say "element" or "item", and pickling changes it
    if types.is_fixed_size_list(kind):
        return pa.list_(pa.field("item", _plain(kind.value_type)), kind.list_size)
    if types.is_large_list(kind):
        return pa.large_list(pa.field("item", _plain(kind.value_type)))
    if types.is_list(kind):
        return pa.list_(pa.field("item", _plain(kind.value_type)))
    return kind


def to_columns(table: pa.Table, rows: Int64s) -> Columns:
    """The rows of a plain table as fresh, writable columns.

    Raises:
        NullAt: an integer or boolean is null; its row is the table's.
    """
    import pyarrow as pa

    tree: dict[str, Any] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        array = column.combine_chunks()
        if isinstance(array, pa.ChunkedArray):  # older versions, or no chunk at all
            array = pa.concat_arrays(array.chunks) if array.chunks else pa.array([], column.type)
        tree[name] = _take(_convert(name, array), rows)
    return Columns(tree)


def _take(tree: Any, rows: Int64s) -> Any:
    if isinstance(tree, dict):
        return {name: _take(part, rows) for name, part in tree.items()}
    return tree[rows]


def _convert(name: str, array: pa.Array) -> Any:
    from pyarrow import types

    kind = array.type
    if types.is_struct(kind) and kind.num_fields:
        parts = zip(kind, array.flatten(), strict=True)  # flatten: a null row is null in each field
        return {field.name: _convert(f"{name}.{field.name}", part) for field, part in parts}
    if types.is_fixed_size_list(kind) and _is_flat(kind):
        return _matrix(name, array)
    if (types.is_list(kind) or types.is_large_list(kind)) and _is_number(kind.value_type):
        return _ragged(name, array)
    if _is_number(kind):
        if array.null_count and (types.is_integer(kind) or types.is_boolean(kind)):
            raise NullAt(
                name, int(np.argmax(array.is_null().to_numpy(zero_copy_only=False))), str(kind)
            )
        return array.to_numpy(zero_copy_only=False)
    if types.is_nested(kind):
        return _objects(array.to_pylist())
    return array.to_numpy(zero_copy_only=False).astype(object)  # text, binary, decimals, times


def _is_number(kind: pa.DataType) -> bool:
    from pyarrow import types

    moment = types.is_timestamp(kind) or types.is_date(kind) or types.is_duration(kind)
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return moment or number


def _is_flat(kind: pa.DataType) -> bool:
    """Fixed-size lists of numbers, nested or not."""
    from pyarrow import types

    return _is_flat(kind.value_type) if types.is_fixed_size_list(kind) else _is_number(kind)


def _matrix(name: str, array: pa.Array) -> NDArray[Any]:
    """Fixed-size lists as `[n, k]`, nested ones as `[n, k, l]`; a null list is a row of NaN."""
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    size = array.type.list_size
    inner = _values(name, array, np.full(int(valid.sum()), size), np.flatnonzero(valid))
    full = inner.reshape(int(valid.sum()), size, *inner.shape[1:])
    if valid.all():
        return full
    if full.dtype.kind not in "fmM":
        raise NullAt(name, int(np.argmin(valid)), str(array.type))
    out = np.full(
        (len(valid), *full.shape[1:]), np.nan if full.dtype.kind == "f" else "NaT", full.dtype
    )
    out[valid] = full
    return out


def _ragged(name: str, array: pa.Array) -> NDArray[np.object_]:
    """Lists of numbers as an object array of arrays, each with its own memory; null is None."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)  # pyright: ignore[reportAttributeAccessIssue]
    values = _values(name, array, lengths, np.arange(len(lengths)))
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    spans = zip(valid.tolist(), (ends - lengths).tolist(), ends.tolist(), strict=True)
    return _objects([values[a:b].copy() if ok else None for ok, a, b in spans])


def _values(name: str, array: Any, lengths: Int64s, rows: Int64s) -> NDArray[Any]:
    """All values of lists end to end; a null among them is reported by the list's row."""
    try:
        return _convert(name, array.flatten())
    except NullAt as e:
        held_by = int(np.searchsorted(np.cumsum(lengths), e.row, side="right"))
        raise e.above(int(rows[held_by])) from None


def _objects(values: list[Any]) -> NDArray[np.object_]:
    out = np.empty(len(values), object)
    for i, value in enumerate(values):  # out[:] = values would spread lists of equal length
        out[i] = value
    return out
