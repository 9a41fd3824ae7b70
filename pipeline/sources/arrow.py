"""What an Arrow column is in NumPy; decided by its type alone, never by its values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s
from pipeline.errors import SourceError
from pipeline.sources.arrow_arrays import one_array
from pipeline.sources.arrow_types import is_ragged, width

if TYPE_CHECKING:
    import pyarrow as pa

Bools = NDArray[np.bool_]
_WIDE = 1 << 20  # of a type that no value is made of to try it
_EXACT = 2.0**53  # from here on float64 leaves integers out


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


@dataclass(frozen=True)
class Fields:
    """Which columns rows have, and what becomes of null integers and booleans.

    Attributes:
        schema: plain (`arrow_types.plain_schema`).
        nulls: "raise", "float" or "mask", as `ParquetSource` says.
    """

    schema: pa.Schema
    nulls: str = "raise"

    def __post_init__(self) -> None:
        if self.nulls not in ("raise", "float", "mask"):
            raise SourceError(f'nulls={self.nulls!r} must be "raise", "float" or "mask".')

    def described(self) -> list[str]:
        """What of it decides data, for fingerprints."""
        types = [f"{field.name}: {field.type}" for field in self.schema]
        return types if self.nulls == "raise" else [*types, f"nulls: {self.nulls}"]

    def columns(self, table: pa.Table) -> Tree:
        """The columns of a table that has at least these fields; views where possible."""
        tree: Tree = {}
        for field in self.schema:
            array = one_array(table.column(field.name), field.type)
            self._add(tree, "", field.name, array, field.type)
        return tree

    def _add(self, tree: Tree, prefix: str, name: str, array: Any, kind: pa.DataType) -> None:
        from pyarrow import types

        full = prefix + name
        if types.is_struct(kind) and kind.num_fields:
            names = [field.name for field in array.type]
            parts = dict(zip(names, array.flatten(), strict=True))  # a null row nulls each field
            tree[name] = inner = {}
            for field in kind:
                self._add(inner, full + ".", field.name, parts[field.name], field.type)
            return
        tree[name] = _column(full, array, kind, self.nulls)
        if self.nulls == "mask" and _lacks_null(kind):
            tree[_mask_name(name)] = _valid_column(full, array, kind)

    def check(self, path: str) -> Tree:
        """The columns of no rows.

        Raises:
            SourceError: a column is of a type that cannot be read; or the name of its mask is
                taken.
        """
        import pyarrow as pa

        self._check_names(path, list(self.schema))
        ones: list[Any] = []
        for field in self.schema:
            try:
                ones.append(pa.nulls(1 if width(field.type) <= _WIDE else 0, field.type))
                _check_type(ones[-1], Fields(pa.schema([field]), "mask"))
            except Exception as e:
                raise SourceError(
                    f"column {field.name!r} of {path} is of a type that cannot be read, "
                    f"{field.type}: {' '.join(str(e).split()).rstrip('.')}. Leave it out with "
                    "columns=, or rewrite the file with another type."
                ) from e
        return self.columns(pa.Table.from_arrays([one[:0] for one in ones], schema=self.schema))

    def _check_names(self, path: str, fields: Sequence[pa.Field]) -> None:
        from pyarrow import types

        names = [field.name for field in fields]
        for field in fields:
            if types.is_struct(field.type):
                self._check_names(path, list(field.type))
                continue
            masked = self.nulls == "mask" and _lacks_null(field.type)
            if masked and _mask_name(field.name) in names:
                raise SourceError(
                    f'{path}: nulls="mask" adds {_mask_name(field.name)!r} beside '
                    f"{field.name!r}, but there is such a column. Leave it out with columns=, "
                    'or use nulls="float".'
                )


def _check_type(one: Any, fields: Fields) -> None:
    import pyarrow as pa

    tree = fields.columns(pa.Table.from_arrays([one], schema=fields.schema))
    rows = np.arange(len(one))
    put(tree, room(tree, len(rows)), rows, rows)


def _mask_name(name: str) -> str:
    return name + "_mask"


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
    """Numbers and times, and fixed-size lists of them: `[n, ...]`.

    Args:
        name: of the column, dotted.
        values: `[n, ...]`.
        unusable: bool[n], rows whose value NumPy cannot hold; None if there are none.
        why: what is wrong with these.
    """

    def __init__(self, name: str, values: NDArray[Any], unusable: Bools | None, why: str) -> None:
        self._name, self._values, self._unusable, self._why = name, values, unusable, why

    @property
    def nbytes(self) -> int:
        return self._values.nbytes

    def room(self, n: int) -> NDArray[Any]:
        return np.empty((n, *self._values.shape[1:]), self._values.dtype)

    def put(self, out: NDArray[Any], at: Int64s, rows: Int64s) -> None:
        refuse(self._unusable, rows, self._name, self._why)
        out[at] = self._values[rows]


class Ragged:
    """Lists of numbers: an object array of arrays, each with memory of its own; null is None.

    Args:
        name, why: as of `Fixed`.
        lists: an Arrow array, whose offsets and nulls count.
        values: `[m, ...]`, what the lists hold.
        unusable: bool[m].
    """

    def __init__(
        self, name: str, lists: Any, values: NDArray[Any], unusable: Bools | None, why: str
    ) -> None:
        self._name, self._values, self._why = name, values, why
        offsets = lists.offsets.to_numpy()
        self._starts, self._stops = offsets[:-1], offsets[1:]
        self._none = _nulls(lists)
        self._unusable: Bools | None = None
        if unusable is not None:
            before = np.concatenate([[0], np.cumsum(unusable)])
            self._unusable = before[self._stops] > before[self._starts]
            if self._none is not None:
                self._unusable &= ~self._none

    @property
    def nbytes(self) -> int:
        return self._values.nbytes + 2 * self._starts.nbytes

    def room(self, n: int) -> NDArray[Any]:
        return np.empty(n, object)

    def put(self, out: NDArray[Any], at: Int64s, rows: Int64s) -> None:
        refuse(self._unusable, rows, self._name, self._why)
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
        except (UnicodeDecodeError, ValueError, OverflowError, pa.ArrowException) as e:
            if len(rows) > 1:  # the first that fails alone; or too many for 32-bit offsets
                for some in np.array_split(np.arange(len(rows)), 2):
                    self.put(out, at[some], rows[some])
                return
            remedy = "Is it text in another encoding than UTF-8? Store it as binary"
            why = f"cannot be had from its {self._array.type} ({' '.join(str(e).split())})"
            raise Unusable(self._name, int(rows[0]), why, remedy) from None

    def _put(self, out: NDArray[Any], at: Int64s, rows: Int64s) -> None:
        import pyarrow as pa
        from pyarrow import types

        # pandas would make other objects of intervals
        if not (types.is_nested(self._array.type) or types.is_interval(self._array.type)):
            taken = self._array.take(pa.array(rows))
            out[at] = taken.to_numpy(zero_copy_only=False).astype(object)
            return
        for i, value in zip(at.tolist(), _python(self._array, rows), strict=True):
            out[i] = value  # out[at] = values would spread lists of equal length


def _python(array: Any, rows: Int64s) -> list[Any]:
    import pyarrow as pa
    from pyarrow import types

    if types.is_union(array.type):  # `take` knows not all that a union may hold
        return [array[i].as_py() for i in rows.tolist()]
    return array.take(pa.array(rows)).to_pylist()


def _column(name: str, array: Any, kind: pa.DataType, nulls: str) -> Column:
    if is_flat(kind):
        return Fixed(name, *_numbers(array, nulls), _reason(array.type, nulls))
    if is_ragged(kind) and is_number(kind.value_type):
        numbers = _numbers(array.values, nulls)
        return Ragged(name, array, *numbers, _reason(array.type.value_type, nulls))
    return Objects(name, array)


def _reason(kind: pa.DataType, nulls: str) -> str:
    while kind.num_fields:  # of lists of numbers: what they hold
        kind = kind.value_type
    if not _is_whole(kind):
        return f"is -2**63 in {kind}, which NumPy takes for no time at all"
    if nulls == "float":
        return f"holds a number of {kind} that no float64 is equal to"
    return f"is null, and {kind} has no null in NumPy"


def _valid_column(name: str, array: Any, kind: pa.DataType) -> Column:
    """Which numbers of a column are not null, in the column's own shape."""
    if is_flat(kind):
        return Fixed(name, _valid(array), None, "")
    return Ragged(name, array, _valid(array.values), None, "")


def is_number(kind: pa.DataType) -> bool:
    from pyarrow import types

    moment = types.is_timestamp(kind) or types.is_date(kind) or types.is_duration(kind)
    return moment or types.is_floating(kind) or _is_whole(kind)


def is_flat(kind: pa.DataType) -> bool:
    """Numbers, and fixed-size lists of them, nested or not."""
    from pyarrow import types

    return is_flat(kind.value_type) if types.is_fixed_size_list(kind) else is_number(kind)


def _lacks_null(kind: pa.DataType) -> bool:
    """Integers and booleans, and lists of them: NumPy has no null for these."""
    if is_flat(kind):
        return _lacks_null(kind.value_type) if kind.num_fields else _is_whole(kind)
    return is_ragged(kind) and _is_whole(kind.value_type)


def _is_whole(kind: pa.DataType) -> bool:
    from pyarrow import types

    return types.is_integer(kind) or types.is_boolean(kind)


def _nulls(array: Any) -> Bools | None:
    """Which values are null; None if none is."""
    return array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None


def _valid(array: Any) -> Bools:
    """bool[n, ...]: which numbers are not null."""
    from pyarrow import types

    own = array.is_valid().to_numpy(zero_copy_only=False)
    if not types.is_fixed_size_list(array.type):
        return own
    inner = _valid(array.flatten())
    out = np.zeros((len(array), array.type.list_size, *inner.shape[1:]), bool)
    out[own] = inner.reshape(-1, *out.shape[1:])
    return out


def _numbers(array: Any, nulls: str) -> tuple[NDArray[Any], Bools | None]:
    """Values `[n, ...]`, NaN or NaT for null, and which rows hold one that is neither."""
    from pyarrow import types

    kind = array.type
    if types.is_fixed_size_list(kind):
        return _matrix(array, nulls)
    null = _nulls(array)
    if not _is_whole(kind):
        values = array.to_numpy(zero_copy_only=False)
        return values, _smallest(values, null) if values.dtype.kind in "mM" else None
    if null is None:
        values = array.to_numpy(zero_copy_only=False)
    else:
        values = array.fill_null(False if types.is_boolean(kind) else 0).to_numpy(False)
    if nulls != "float":
        return values, null if nulls == "raise" else None
    floats = values.astype(np.float64)
    inexact = np.abs(floats) >= _EXACT if kind.bit_width == 64 else None
    if null is not None:
        floats[null] = np.nan
    return floats, inexact if inexact is not None and inexact.any() else None


def _smallest(values: NDArray[Any], null: Bools | None) -> Bools | None:
    # times that NumPy takes for NaT
    found = np.isnat(values) if null is None else np.isnat(values) & ~null
    return found if found.any() else None


def _matrix(array: Any, nulls: str) -> tuple[NDArray[Any], Bools | None]:
    size, none = array.type.list_size, _nulls(array)
    n = len(array) - (0 if none is None else int(none.sum()))
    inner, bad = _numbers(array.flatten(), nulls)  # leaves null lists out
    full = inner.reshape(n, size, *inner.shape[1:])
    lacks: Bools | None = None if bad is None else np.any(bad.reshape(n, size), axis=1)
    if none is None:
        return full, lacks
    out = np.zeros((len(array), *full.shape[1:]), full.dtype)
    out[~none] = full
    if full.dtype.kind in "fmM":
        out[none] = np.nan if full.dtype.kind == "f" else np.array("NaT", full.dtype)
        none = np.zeros(len(array), bool)
    elif nulls != "raise":
        return out, None
    every = none.copy()
    every[array.is_valid().to_numpy(zero_copy_only=False)] |= False if lacks is None else lacks
    return out, every if every.any() else None


def refuse(unusable: Bools | None, rows: Int64s, name: str, why: str) -> None:
    """Raise if one of `rows` is unusable.

    Raises:
        Unusable: it names the first such row.
    """
    if unusable is not None and (lacking := unusable[rows]).any():
        remedy = "Fill it, leave it out with columns="
        if "null" in why:
            remedy = 'Read it with nulls="float" or nulls="mask", or leave it out with columns='
        raise Unusable(name, int(rows[np.argmax(lacking)]), why, remedy)
