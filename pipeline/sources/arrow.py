"""How an Arrow column becomes NumPy arrays. Its type alone decides, never its values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.sources.arrow_arrays import one_array
from pipeline.sources.arrow_columns import (
    Bools,
    Column,
    Fixed,
    Objects,
    Ragged,
    Tree,
    nulls_of,
    put,
    room,
)
from pipeline.sources.arrow_types import is_ragged, is_text, width

if TYPE_CHECKING:
    import pyarrow as pa

_WIDE = 1 << 20  # above so many values, one value of a type is not allocated for the check
_EXACT = 2.0**53  # above this, float64 does not represent every integer


@dataclass(frozen=True)
class Fields:
    """Which columns rows have, and how null integers and booleans are read.

    Attributes:
        schema: without encodings (`arrow_types.plain_schema`).
        nulls: "raise", "float" or "mask", as for `ParquetSource`.
    """

    schema: pa.Schema
    nulls: str = "raise"

    def __post_init__(self) -> None:
        if self.nulls not in ("raise", "float", "mask"):
            raise SourceError(f'nulls={self.nulls!r} must be "raise", "float" or "mask".')

    def described(self) -> list[str]:
        """What the decoded data depend on, for fingerprints."""
        types = [f"{field.name}: {field.type}" for field in self.schema]
        return types if self.nulls == "raise" else [*types, f"nulls: {self.nulls}"]

    def columns(self, table: pa.Table) -> Tree:
        """The columns of a table that has at least these fields, as views where possible."""
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
            # where the struct is null, each of its fields is null
            parts = dict(zip(names, array.flatten(), strict=True))
            tree[name] = inner = {}
            for field in kind:
                self._add(inner, full + ".", field.name, parts[field.name], field.type)
            return
        tree[name] = _column(full, array, kind, self.nulls)
        if self.nulls == "mask" and _lacks_null(kind):
            tree[_mask_name(name)] = _valid_column(full, array, kind)

    def check(self, path: str) -> Tree:
        """The columns, with no rows. Checks that every type can be decoded.

        Raises:
            SourceError: a column has a type that cannot be read, or the name of its mask is taken.
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


def _column(name: str, array: Any, kind: pa.DataType, nulls: str) -> Column:
    if is_flat(kind):
        return Fixed(name, *_numbers(array, nulls), _reason(array.type, nulls))
    if is_ragged(kind) and is_number(kind.value_type):
        numbers = _numbers(array.values, nulls)
        return Ragged(name, array, *numbers, _reason(array.type.value_type, nulls))
    return Objects(name, array)


def _reason(kind: pa.DataType, nulls: str) -> str:
    while kind.num_fields:  # descend to the elements of lists
        kind = kind.value_type
    if not _is_whole(kind):
        return f"is -2**63 in {kind}, which NumPy takes for no time at all"
    if nulls == "float":
        return f"holds a number of {kind} that no float64 is equal to"
    return f"is null, and {kind} has no null in NumPy"


def _valid_column(name: str, array: Any, kind: pa.DataType) -> Column:
    """A boolean column, False where a number of `array` is null, in the same shape."""
    if is_flat(kind):
        return Fixed(name, _valid(array), None, "")
    return Ragged(name, array, _valid(array.values), None, "")


def is_number(kind: pa.DataType) -> bool:
    from pyarrow import types

    moment = types.is_timestamp(kind) or types.is_date(kind) or types.is_duration(kind)
    return moment or types.is_floating(kind) or _is_whole(kind)


def is_viewed(array: Any, kind: pa.DataType) -> bool:
    """Whether decoding leaves an array's values where they are, and reads only those of rows."""
    from pyarrow import types

    own = array.type
    if own != kind or types.is_boolean(own) or (array.null_count and not is_text(own)):
        return False
    parts = [own.field(i).type for i in range(own.num_fields)]
    return not any(map(types.is_boolean, parts))


def is_flat(kind: pa.DataType) -> bool:
    """Whether a type is a number or time, or fixed-size lists of them, nested or not."""
    from pyarrow import types

    return is_flat(kind.value_type) if types.is_fixed_size_list(kind) else is_number(kind)


def _lacks_null(kind: pa.DataType) -> bool:
    """Whether NumPy has no null for a type: integers, booleans, and lists of them."""
    if is_flat(kind):
        return _lacks_null(kind.value_type) if kind.num_fields else _is_whole(kind)
    return is_ragged(kind) and _is_whole(kind.value_type)


def _is_whole(kind: pa.DataType) -> bool:
    from pyarrow import types

    return types.is_integer(kind) or types.is_boolean(kind)


def _valid(array: Any) -> Bools:
    """bool[n, ...], which numbers are not null."""
    from pyarrow import types

    own = array.is_valid().to_numpy(zero_copy_only=False)
    if not types.is_fixed_size_list(array.type):
        return own
    inner = _valid(array.flatten())
    out = np.zeros((len(array), array.type.list_size, *inner.shape[1:]), bool)
    out[own] = inner.reshape(-1, *out.shape[1:])
    return out


def _numbers(array: Any, nulls: str) -> tuple[NDArray[Any], Bools | None]:
    """Values `[n, ...]` with NaN or NaT for null, and bool[n], which of them NumPy cannot hold."""
    from pyarrow import types

    kind = array.type
    if types.is_fixed_size_list(kind):
        return _matrix(array, nulls)
    null = nulls_of(array)
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
    # bool[n], times that are not null but that NumPy reads as NaT
    found = np.isnat(values) if null is None else np.isnat(values) & ~null
    return found if found.any() else None


def _matrix(array: Any, nulls: str) -> tuple[NDArray[Any], Bools | None]:
    size, none = array.type.list_size, nulls_of(array)
    n = len(array) - (0 if none is None else int(none.sum()))
    inner, bad = _numbers(array.flatten(), nulls)  # without the null lists
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
