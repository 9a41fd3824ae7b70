"""What an Arrow column is in NumPy; decided by its type alone, never by its values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s

if TYPE_CHECKING:
    import pyarrow as pa

Bools = NDArray[np.bool_]


class Unusable(Exception):
    """A value that NumPy or Python cannot hold.

    Attributes:
        column: its column's dotted name.
        row: its row among those of its chunk.
        why: what is wrong with it.
        remedy: what to do about it, besides skipping.
    """

    def __init__(self, column: str, row: int, why: str, remedy: str) -> None:
        super().__init__(column, row, why, remedy)
        self.column, self.row, self.why, self.remedy = column, row, why, remedy


def plain_table(table: pa.Table) -> pa.Table:
    """The table with dictionaries decoded, extension types stored plainly, nullable throughout."""
    import pyarrow as pa

    schema = plain_schema(table.schema)
    if table.schema.equals(schema):
        return table
    columns = [
        column if column.type == field.type else column.cast(field.type)
        for column, field in zip(table.columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of `plain_table`: what alone decides fields, dtypes and shapes."""
    import pyarrow as pa

    return pa.schema([pa.field(field.name, _plain(field.type)) for field in schema])


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


class Column(Protocol):
    """One column of a decoded run of rows; its values stay where Arrow has them if they can."""

    @property
    def nbytes(self) -> int: ...

    def room(self, n: int) -> NDArray[Any]:
        """An array for n rows of this column, writable, its values not set."""
        ...

    def put(self, out: NDArray[Any], at: Int64s, rows: Int64s) -> None:
        """Set `out[at]` to rows of this column, copied.

        Raises:
            Unusable: an integer or boolean is null, or text no UTF-8, in one of `rows`.
        """
        ...


Tree = dict[str, Any]  # columns by name, nested where the table has structs


def columns_of(table: pa.Table, schema: pa.Schema) -> Tree:
    """The columns of a plain table that a narrower plain schema wants, views where possible."""
    import pyarrow as pa

    tree: Tree = {}
    for field in schema:
        array = table.column(field.name).combine_chunks()
        if isinstance(array, pa.ChunkedArray):  # older versions, or no chunk at all
            array = pa.concat_arrays(array.chunks) if array.chunks else pa.array([], array.type)
        tree[field.name] = _column(field.name, array, field.type)
    return tree


def nbytes(tree: Tree) -> int:
    """About how much memory columns take."""
    return sum(nbytes(c) if isinstance(c, dict) else c.nbytes for c in tree.values())


def room(tree: Tree, n: int) -> Tree:
    """Arrays for n rows of such columns."""
    return {k: room(c, n) if isinstance(c, dict) else c.room(n) for k, c in tree.items()}


def put(tree: Tree, out: Tree, at: Int64s, rows: Int64s) -> None:
    """Set `out[at]` to rows of the columns.

    Raises:
        Unusable: an integer or boolean is null, or text no UTF-8, in one of `rows`.
    """
    for name, column in tree.items():
        if isinstance(column, dict):
            put(column, out[name], at, rows)
        else:
            column.put(out[name], at, rows)


class Fixed:
    """Numbers and times, and fixed-size lists of them: `[n, ...]`."""

    def __init__(self, name: str, array: Any) -> None:
        self._name, self._kind = name, str(array.type)
        self._values, self._null = _numbers(array)

    @property
    def nbytes(self) -> int:
        return self._values.nbytes

    def room(self, n: int) -> NDArray[Any]:
        return np.empty((n, *self._values.shape[1:]), self._values.dtype)

    def put(self, out: NDArray[Any], at: Int64s, rows: Int64s) -> None:
        _refuse(self._null, rows, self._name, self._kind)
        out[at] = self._values[rows]


class Ragged:
    """Lists of numbers: an object array of arrays, each with memory of its own; null is None."""

    def __init__(self, name: str, array: Any) -> None:
        self._name, self._kind = name, str(array.type.value_type)
        offsets = array.offsets.to_numpy()
        self._starts, self._stops = offsets[:-1], offsets[1:]
        self._values, null = _numbers(array.values)
        self._none = _nulls(array)
        self._null: Bools | None = None
        if null is not None:
            before = np.concatenate([[0], np.cumsum(null)])
            self._null = before[self._stops] > before[self._starts]
            if self._none is not None:
                self._null &= ~self._none

    @property
    def nbytes(self) -> int:
        return self._values.nbytes + 2 * self._starts.nbytes

    def room(self, n: int) -> NDArray[Any]:
        return np.empty(n, object)

    def put(self, out: NDArray[Any], at: Int64s, rows: Int64s) -> None:
        _refuse(self._null, rows, self._name, self._kind)
        values = self._values
        spans = zip(self._starts[rows].tolist(), self._stops[rows].tolist(), strict=True)
        for i, (start, stop) in zip(at.tolist(), spans, strict=True):
            out[i] = values[start:stop].copy()
        if self._none is not None:
            out[at[self._none[rows]]] = None


class Objects:
    """Text, binary, decimals and all else that nests: an object array of Python's own."""

    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    @property
    def nbytes(self) -> int:
        return self._array.nbytes

    def room(self, n: int) -> NDArray[Any]:
        return np.empty(n, object)

    def put(self, out: NDArray[Any], at: Int64s, rows: Int64s) -> None:
        import pyarrow as pa

        try:
            self._put(out, at, rows)
        except (UnicodeDecodeError, pa.ArrowException) as e:
            if len(rows) == 1:
                kind = self._array.type
                why = f"cannot be had from its {kind} ({' '.join(str(e).split())})"
                remedy = "Is it text in another encoding than UTF-8? Store it as binary"
                raise Unusable(self._name, int(rows[0]), why, remedy) from None
            for i in range(len(rows)):  # the first of them that fails alone
                self.put(out, at[i : i + 1], rows[i : i + 1])
            raise

    def _put(self, out: NDArray[Any], at: Int64s, rows: Int64s) -> None:
        import pyarrow as pa
        from pyarrow import types

        taken = self._array.take(pa.array(rows))
        if not types.is_nested(taken.type):
            out[at] = taken.to_numpy(zero_copy_only=False).astype(object)
            return
        for i, value in zip(at.tolist(), taken.to_pylist(), strict=True):
            out[i] = value  # out[at] = values would spread lists of equal length


def _column(name: str, array: Any, kind: pa.DataType) -> Column | Tree:
    from pyarrow import types

    if types.is_struct(kind) and kind.num_fields:
        names = [field.name for field in array.type]
        parts = dict(zip(names, array.flatten(), strict=True))  # a null row is null in each field
        return {f.name: _column(f"{name}.{f.name}", parts[f.name], f.type) for f in kind}
    if _is_flat(kind):
        return Fixed(name, array)
    if (types.is_list(kind) or types.is_large_list(kind)) and _is_number(kind.value_type):
        return Ragged(name, array)
    return Objects(name, array)


def _is_number(kind: pa.DataType) -> bool:
    from pyarrow import types

    moment = types.is_timestamp(kind) or types.is_date(kind) or types.is_duration(kind)
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return moment or number


def _is_flat(kind: pa.DataType) -> bool:
    """Numbers, and fixed-size lists of them, nested or not."""
    from pyarrow import types

    return _is_flat(kind.value_type) if types.is_fixed_size_list(kind) else _is_number(kind)


def _nulls(array: Any) -> Bools | None:
    """Which values are null; None if none is."""
    return array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None


def _numbers(array: Any) -> tuple[NDArray[Any], Bools | None]:
    """Values `[n, ...]`, NaN or NaT for null, and which of them are null without having that."""
    from pyarrow import types

    kind = array.type
    if types.is_fixed_size_list(kind):
        return _matrix(array)
    null = _nulls(array)
    if null is None or not (types.is_integer(kind) or types.is_boolean(kind)):
        return array.to_numpy(zero_copy_only=False), None
    return array.fill_null(False if types.is_boolean(kind) else 0).to_numpy(False), null


def _matrix(array: Any) -> tuple[NDArray[Any], Bools | None]:
    size, none = array.type.list_size, _nulls(array)
    n = len(array) - (0 if none is None else int(none.sum()))
    inner, null = _numbers(array.flatten())  # leaves null lists out
    full = inner.reshape(n, size, *inner.shape[1:])
    lacks: Bools | None = None if null is None else np.any(null.reshape(n, size), axis=1)
    if none is None:
        return full, lacks
    out = np.zeros((len(array), *full.shape[1:]), full.dtype)
    out[~none] = full
    if full.dtype.kind in "fmM":
        out[none] = np.nan if full.dtype.kind == "f" else np.array("NaT", full.dtype)
        return out, None
    if lacks is None:
        return out, none
    every = none.copy()
    every[~none] = lacks
    return out, every


def _refuse(null: Bools | None, rows: Int64s, name: str, kind: str) -> None:
    if null is not None and (lacking := null[rows]).any():
        row = int(rows[np.argmax(lacking)])
        remedy = "Fill it or store floats, leave the column out with columns="
        raise Unusable(name, row, f"is null, and {kind} has no null in NumPy", remedy)
