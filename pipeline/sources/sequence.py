"""Tables, and other libraries' datasets, as sources."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.block import Columns, Int64s
from pipeline.errors import RecordError, SourceError
from pipeline.sources.arrow import Fields
from pipeline.sources.arrow_arrays import as_plain
from pipeline.sources.arrow_columns import Unusable, put, room
from pipeline.sources.arrow_types import plain, widened
from pipeline.sources.indices import inside
from pipeline.sources.memory import FEW, RANDOM, MemorySource
from pipeline.sources.projection import projected
from pipeline.sources.sharing import sharing
from pipeline.tree import fresh

if TYPE_CHECKING:
    import pyarrow as pa

_SAMPLE = 64
_PIECE = 1 << 16  # rows hashed at once
_PLAIN = {"Value", "ClassLabel", "List", "LargeList", "Sequence"}  # features read as stored


class SequenceSource:
    """Records of a table, or of an object with a length and `__getitems__` or `[i]`.

    A table (`pyarrow.Table`, or a frame of pandas or Polars) is read by its columns' names; a
    frame's index is not a column. A Hugging Face dataset of numbers, strings, lists and dicts, with
    no format, "numpy" or "arrow", is also read through Arrow. Both give `Columns` with the types
    that `ParquetSource` has. If a Hugging Face dataset has another format, a transform, or features
    that decode (images, audio), these are applied, and rows come as a list. So do those of TFDS
    data sources and map-style PyTorch datasets.

    Args:
        values: the table or object. It is pickled as it is. Reading it must not change it, and must
            be thread-safe if you use threads.
        nulls: for tables: how null integers and booleans are read: "raise", "float" or "mask", as
            for `ParquetSource`.

    Raises:
        SourceError: it has no length or no `[i]`, or is a table with a column that cannot be read.

    >>> class Squares:
    ...     def __len__(self):
    ...         return 5
    ...     def __getitems__(self, indices):
    ...         return [i * i for i in indices]
    >>> SequenceSource(Squares()).read(np.array([3, 0, 3]))
    [9, 0, 9]
    >>> import pyarrow as pa
    >>> SequenceSource(pa.table({"id": [7, 8], "word": ["to", "be"]})).read(np.array([1]))
    Columns(id: int64[1], word: object[1])
    """

    def __init__(self, values: Any, *, nulls: str = "raise") -> None:
        readable = hasattr(values, "__getitems__") or hasattr(values, "__getitem__")
        if not (hasattr(values, "__len__") and readable):
            raise SourceError(
                f"a {type(values).__name__} has no length and no [i]. Is it a stream? Write it to "
                "files first, or give a list."
            )
        self._values = arrow_table(values) if is_table(values) else values
        self._name = type(values).__name__
        self._nulls = nulls
        self._open()

    def _open(self) -> None:
        self._taken = _as_arrow(self._values)
        said = getattr(self._values, "format", None)
        if self._taken is None and isinstance(said, dict) and said.get("type") == "arrow":
            # features that decode: that format cannot give them row by row
            self._values = self._values.with_format(None, columns=said.get("columns"))
        self._fields: Fields | None = None
        self._digest: str | None = None
        self._unseen: tuple[str, ...] = ()
        if self._taken is not None:
            schema = self._taken(np.zeros(0, np.int64)).schema
            self._fields = Fields(projected(f"this {self._name}", schema, None), self._nulls)
            self._fields.check(f"this {self._name}")

    def __getstate__(self) -> dict[str, Any]:
        return {"values": self._values, "name": self._name, "nulls": self._nulls}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._values, self._name = state["values"], state["name"]
        self._nulls = state["nulls"]
        self._open()

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"SequenceSource({self._name}, {len(self)} records)"

    def read(self, indices: Int64s) -> list[Any] | Columns:
        """Records by index, in the order given, repeats included: `Columns`, or a list.

        Raises:
            PositionError: an index is negative or beyond the end.
            RecordError: columns are read, and a record holds a null integer or boolean.
            SourceError: the object returned another number of records.
        """
        wanted = inside(indices, len(self))
        if self._taken is not None and self._fields is not None:
            return self._columns(self._fields, self._taken(wanted), wanted)
        some = wanted.tolist()
        if not some or not hasattr(self._values, "__getitems__"):
            return [fresh(self._values[i]) for i in some]
        rows = self._asked(some)
        if sharing(rows, some):
            rows = [fresh(self._asked([i])[0]) for i in some]  # it may be one object filled again
        return [fresh(row) for row in rows]

    def _asked(self, some: list[int]) -> list[Any]:
        rows = self._values.__getitems__(some)
        if not hasattr(rows, "__len__") or len(rows) != len(some):
            gave = f"{len(rows)} records" if hasattr(rows, "__len__") else type(rows).__name__
            raise SourceError(
                f"{self._name}.__getitems__ gave {gave} for "
                f"{len(some)} indices. It must return a list of one record an index."
            )
        return list(rows)

    def _columns(self, fields: Fields, table: Any, wanted: Int64s) -> Columns:
        tree, rows = fields.columns(table), np.arange(len(wanted))
        found = room(tree, len(wanted))
        try:
            put(tree, found, rows, rows)
        except Unusable as e:
            raise RecordError(
                f"column {e.column!r} of record {int(wanted[e.row])} of this "
                f"{self._name} {e.why}. {e.remedy}, or skip such records with "
                '.on_error("skip").'
            ) from None
        return Columns(found)

    def fingerprint(self) -> str:
        """A string that identifies the records.

        It is made of the length and the first of these that exists: a digest of all the contents,
        for a table; the object's own `fingerprint()`; the fingerprint of a Hugging Face dataset; a
        digest of 64 evenly spaced records, unless a record is another each time it is read.
        """
        if self._digest is None:
            known = getattr(self._values, "_fingerprint", None)
            own = getattr(self._values, "fingerprint", None)
            if is_table(self._values) and self._fields is not None:
                own = self._contents(self._fields.schema)
            else:
                own = (
                    own() if callable(own) else known if isinstance(known, str) else self._sample()
                )
            self._digest = f"sequence {len(self)} {own}"
            if self._nulls != "raise":
                self._digest += f" nulls: {self._nulls}"
        return self._digest

    def _contents(self, schema: pa.Schema) -> str:
        # piece by piece, so that a large table is not copied; a null is hashed as one
        fields, digest = Fields(schema, "mask"), hashlib.blake2b(digest_size=16)
        for start in range(0, max(1, len(self)), _PIECE):
            rows = np.arange(start, min(start + _PIECE, len(self)))
            piece = self._columns(fields, self._values.take(rows), rows)
            digest.update(MemorySource(piece).fingerprint().encode())
        return digest.hexdigest()

    def _sample(self) -> str:
        some = np.linspace(0, len(self) - 1, min(len(self), _SAMPLE)).astype(np.int64)
        few = some[:: max(1, len(some) // FEW)]
        once, again = (MemorySource(self.read(few)).fingerprint() for _ in range(2))
        if once != again:
            self._unseen = (RANDOM,)
            return "random"
        sample = MemorySource(self.read(some))
        self._unseen = sample.unseen
        return sample.fingerprint()

    @property
    def unseen(self) -> tuple[str, ...]:
        """As of `MemorySource`."""
        self.fingerprint()
        return self._unseen


def is_dataset(values: Any) -> bool:
    """Whether a value in a dict is a dataset by itself rather than a column."""
    shown = hasattr(values, "features") and hasattr(values, "column_names")
    return is_table(values) or batched(values) or shown or hasattr(values, "random_map")


def is_table(values: Any) -> bool:
    """Whether an object is a table: it has named columns and can be exported to Arrow.

    >>> import pyarrow as pa
    >>> is_table(pa.table({"x": [1]})), is_table(pa.chunked_array([[1]])), is_table({"x": [1]})
    (True, False, False)
    """
    named = hasattr(values, "column_names") or hasattr(values, "columns")
    return named and hasattr(values, "__arrow_c_stream__")


def arrow_table(values: Any) -> pa.Table:
    """The columns of a table or frame, by name.

    Raises:
        SourceError: a column cannot be represented in Arrow.
    """
    import pyarrow as pa

    names, kinds = getattr(values, "columns", ()), getattr(values, "dtypes", ())
    for name, kind in zip(names, kinds, strict=False):
        if str(kind) == "Object":  # Polars exports the addresses of these as bytes
            raise SourceError(
                f"this {type(values).__name__} has a column of Python objects, {name!r}, which "
                "Arrow cannot hold. Give a list of dicts, as frame.to_dicts() returns."
            )
    try:
        table = pa.table(values)
    except (pa.ArrowException, TypeError, ValueError) as e:
        why = " ".join(str(e).split()).rstrip(".")
        raise SourceError(
            f"this {type(values).__name__} has a column that Arrow cannot hold: {why}. Give each "
            "column values of one type, or a dict of arrays."
        ) from e
    # pandas adds its index as columns, and names them here
    said = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}"))
    index = [name for name in said.get("index_columns", ()) if isinstance(name, str)]
    table = table.drop_columns([name for name in index if name in table.column_names])
    for i, column in enumerate(table.columns):
        if (decoded := _takeable(column)) is not column:
            table = table.set_column(i, table.column_names[i], decoded)
    return table


def _takeable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    # Arrow takes no rows of views and run ends, at whatever depth: these are decoded
    import pyarrow as pa

    try:
        column.take(pa.array([], pa.int64()))
    except pa.ArrowNotImplementedError:
        kind = widened(plain(column.type))
        chunks = [as_plain(chunk, kind) for chunk in column.chunks]
        return pa.chunked_array(chunks, chunks[0].type if chunks else kind)
    return column


def batched(values: Any) -> bool:
    """Whether an object can return many records in one call.

    >>> batched([1, 2])
    False
    """
    return hasattr(values, "__len__") and hasattr(values, "__getitems__")


def _as_arrow(values: Any) -> Callable[[Int64s], pa.Table] | None:
    """A function that returns rows as an Arrow table, or None if Arrow would change the records."""
    if is_table(values):
        return values.take
    said, features = getattr(values, "format", None), getattr(values, "features", None)
    if not isinstance(said, dict) or features is None or not hasattr(values, "with_format"):
        return None
    plain = said.get("type") in (None, "numpy", "arrow") and not said.get("format_kwargs")
    columns = said.get("columns") or []
    if not plain or not columns or not all(_is_plain(features[name]) for name in columns):
        return None
    return values.with_format("arrow", columns=columns).__getitem__


def _is_plain(feature: Any) -> bool:
    if isinstance(feature, dict):
        return all(map(_is_plain, feature.values()))
    if isinstance(feature, list):
        return all(map(_is_plain, feature))
    inner = getattr(feature, "feature", None)  # of a list
    return type(feature).__name__ in _PLAIN and (inner is None or _is_plain(inner))
