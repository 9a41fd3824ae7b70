"""The columns of a conversion: names and types, the same for every shard."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.block import Columns
from pipeline.checks import shown
from pipeline.dataset import Dataset
from pipeline.errors import ChainError
from pipeline.nodes.faults import survivors
from pipeline.scan.progress import progress
from pipeline.tools.convert.tables import Tables, tabular
from pipeline.tools.pieces import done_by

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = 1000  # rows in a row group, the smallest unit that is read
_PIECE = 10_000  # rows whose types one call of a worker finds


def schema_of(ds: Dataset, *, workers: Any, skip_bad: bool) -> str:
    """A schema that fits all rows of a dataset, as text (base64 of Arrow's serialised form).

    Rows of one Parquet or Arrow source keep the types of the files. Columns of NumPy arrays have
    known types. All other rows are evaluated once before any is written, since a column may be null
    in its first million rows.

    Args:
        ds: the dataset.
        workers: who evaluates rows, as for `Loader`.
        skip_bad: leave out rows that cannot be read.

    Raises:
        ChainError: rows have no common schema; the message names the column and both types.
    """

    source = tabular(ds)
    if source is not None:
        return _text(Tables(source).schema)
    # columns of a source have the same types for all rows; other rows have to be evaluated
    told = _of_numbers(ds)
    if told is not None:
        return _text(told)
    starts = range(0, len(ds), _PIECE)
    seen: list[tuple[int, pa.Schema]] = []
    with progress("types", len(ds), "records") as show:
        for start, text in zip(
            starts, done_by(workers, LookAt(ds, skip_bad), starts, name="types"), strict=True
        ):
            seen.append((start, schema_from(text)))
            show(min(start + _PIECE, len(ds)))
    return _text(_unified(seen))


def schema_from(text: str) -> pa.Schema:
    """The schema in a text that `schema_of` returned."""
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def _text(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def _of_numbers(ds: Dataset) -> pa.Schema | None:
    # for a source's own columns of numbers, which no stage changes
    import pyarrow as pa

    source = ds.top.node.unchanged
    if source is None or not len(ds):
        return None
    columns = source.read(np.arange(1))
    if not isinstance(columns, Columns) or not isinstance(columns.tree, dict):
        return None
    try:
        return pa.schema({str(k): _type_of(v) for k, v in columns.tree.items()})
    except (pa.ArrowException, TypeError, ValueError):
        return None


def _type_of(column: Any) -> pa.DataType:
    import pyarrow as pa

    if isinstance(column, dict):
        return pa.struct({str(k): _type_of(v) for k, v in column.items()})
    if not isinstance(column, np.ndarray) or column.dtype.kind not in "biuf":
        raise TypeError
    kind = pa.from_numpy_dtype(column.dtype)
    for size in reversed(column.shape[1:]):
        kind = pa.list_(kind, size)
    return kind


@dataclass(frozen=True)
class LookAt:
    """Maps the index of a first row to the schema of the rows from there on, as text.

    Attributes:
        dataset: the dataset that has the rows.
        skip_bad: whether rows that cannot be read are left out.
    """

    dataset: Dataset
    skip_bad: bool

    def __call__(self, start: int) -> str:

        seen: list[tuple[int, pa.Schema]] = []
        stop = min(int(start) + _PIECE, len(self.dataset))
        for first in range(int(start), stop, GROUP):
            rows = self._rows(first, min(first + GROUP, stop))
            if rows:
                seen.append((first, _schema(rows, first)))
        return _text(_unified(seen))

    def _rows(self, start: int, stop: int) -> list[Any]:
        positions = np.arange(start, stop)
        if not self.skip_bad:
            return self.dataset.read(positions).rows()
        good, _ = survivors(self.dataset.read, positions)
        return [row for _, block in good for row in block.rows()]


def _schema(rows: list[Any], first: int) -> pa.Schema:
    try:
        return table_of(rows, None).schema
    except ChainError as e:
        raise ChainError(f"among rows {first} to {first + len(rows) - 1}, {e}") from e


def _unified(seen: Sequence[tuple[int, pa.Schema]]) -> pa.Schema:
    import pyarrow as pa

    whole = seen[0][1] if seen else pa.schema([])
    for (_, before), (start, schema) in pairwise(seen):
        if schema.equals(before):
            continue
        try:
            whole = pa.unify_schemas([whole, schema], promote_options="permissive")
        except pa.ArrowException as e:
            raise ChainError(
                f"rows from {start} on do not fit the columns of those before: "
                f"{' '.join(str(e).split())}. The columns are {_named(whole)}. Give --map "
                "module:function, which returns rows of one type."
            ) from e
    return whole


# ---- rows as a table


def table_of(rows: Sequence[Any], schema: pa.Schema | None) -> pa.Table:
    """Rows as a table, with the given schema, or with types inferred from these rows.

    Raises:
        ChainError: a value does not fit its column, or rows are not dicts of the same kind.
    """
    import pyarrow as pa

    fields = [_fields(row) for row in rows]
    known = [] if schema is None else schema.names
    names = list(dict.fromkeys([*known, *(name for row in fields for name in row)]))
    columns: list[pa.Array] = []
    for name in names:
        kind = None if schema is None or name not in known else schema.field(name).type
        try:
            columns.append(_column([row.get(name) for row in fields], kind))
        except (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError) as e:
            wanted = "" if schema is None else f" The columns are {_named(schema)}."
            raise ChainError(
                f"rows do not fit the columns: {name!r}: {_short(e)}.{wanted} Give --map "
                "module:function, which returns rows of one type."
            ) from e
    if schema is not None and len(names) == len(known):
        return pa.Table.from_arrays(columns, schema=schema)
    return pa.Table.from_arrays(columns, names=names)


def _fields(row: Any) -> dict[str, Any]:
    if isinstance(row, dict):
        named = {str(k): v for k, v in row.items()}
        if len(named) < len(row):
            raise ChainError(f"of the fields {shown(list(row))} two have the same name as text")
        return named
    if isinstance(row, str):
        return {"text": row}
    return {"tokens" if isinstance(row, np.ndarray) else "record": row}


def _column(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    import pyarrow as pa

    values = [_arrow(value) for value in values]
    if kind is None:
        return pa.array(values, _map_type(values))
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError):
        return pa.array(values, _map_type(values)).cast(kind)  # such as times with a time zone


def _map_type(values: Iterable[Any]) -> pa.DataType | None:
    # Arrow's maps are lists of pairs in Python, which Arrow takes for lists
    import pyarrow as pa

    pairs = [pair for value in values if isinstance(value, list) for pair in value]
    if not pairs or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        return None
    keys, items = ([_arrow(pair[i]) for pair in pairs] for i in (0, 1))
    return pa.map_(pa.array(keys).type, pa.array(items, _map_type(items)).type)


def _arrow(value: Any) -> Any:
    # values that Arrow does not accept as they are: arrays of several axes, and single times
    import pyarrow as pa

    if isinstance(value, np.ndarray):
        return [_arrow(v) for v in value] if value.ndim > 1 else value
    if isinstance(value, np.datetime64 | np.timedelta64):
        return None if np.isnat(value) else pa.array(np.array([value]))[0]
    if isinstance(value, dict):
        return {k: _arrow(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_arrow(v) for v in value]
    return value


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _named(schema: pa.Schema) -> str:
    named = [f"{field.name}: {field.type}" for field in schema]
    return ", ".join(named[:20]) + (f" and {len(named) - 20} more" if len(named) > 20 else "")
