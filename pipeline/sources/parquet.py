"""Where records live: Parquet files, one or many; rows come as columns."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.block import Columns, Int64s
from pipeline.errors import RecordError, SourceError
from pipeline.sources.arrow import NullAt, plain_table, to_columns
from pipeline.sources.files import Files, Paths, changed, unreadable
from pipeline.sources.handles import Handles
from pipeline.sources.indices import inside
from pipeline.sources.storage import Stat, Storage

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


class ParquetSource:
    """Rows of Parquet files as `Columns`; files end to end in the order given.

    Numbers, booleans and times are NumPy arrays (timestamps in UTC), strings and binary object
    arrays, fixed-size lists of numbers arrays `[n, k]`, other lists object arrays of arrays or
    lists, structs nested dicts; dictionaries are decoded. A null is NaN, NaT or None; in integers
    and booleans it is an error. Dtypes follow from the schema alone.

    Parquet's smallest read is a row group. Each is decoded once a call, only in the columns asked
    for, and kept in a cache that threads share.

    Args:
        paths: a path, a glob, or a list of these; globs are sorted.
        columns: top-level columns, in order; None for all.
        cache_bytes: how much decoded data to keep, for speed only; the row group read last is
            always kept.
        storage: how URLs are reached.

    Raises:
        SourceError: a file is missing, empty, truncated or no Parquet file, files differ in their
            schema, or a column does not exist.

    >>> import tempfile, pyarrow as pa, pyarrow.parquet as pq
    >>> path = tempfile.mkdtemp() + "/a.parquet"
    >>> pq.write_table(pa.table({"id": [7, 8, 9], "text": ["to", "be", "or"]}), path)
    >>> rows = ParquetSource(path, columns=["text"]).read(np.array([2, 0]))
    >>> rows.tree["text"].tolist()
    ['or', 'to']
    """

    def __init__(
        self,
        paths: Paths,
        columns: Sequence[str] | None = None,
        *,
        cache_bytes: int = 256 << 20,
        storage: Storage | None = None,
    ) -> None:
        self._groups: list[Int64s] = []
        self._schema: pa.Schema | None = None
        self._columns = None if columns is None else _distinct(columns)
        self._cache_bytes = cache_bytes
        self._files = Files.counted(paths, self._count, storage)
        self._columns = tuple(self._arrow_schema.names)
        self._open_nothing()

    def _open_nothing(self) -> None:
        sizes = np.concatenate([np.zeros(0, np.int64), *self._groups])
        self._bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._first_group = np.concatenate([[0], np.cumsum([len(g) for g in self._groups])])
        self._metadata = Handles(self._open)
        self._cache = _Cache(self._cache_bytes)

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        files = self._files.paths
        return f"ParquetSource({len(files)} files from {files[0]!r}, {len(self)} rows)"

    def __getstate__(self) -> dict[str, Any]:
        names = ("_files", "_groups", "_schema", "_columns", "_cache_bytes")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_nothing()

    @property
    def _arrow_schema(self) -> pa.Schema:
        assert self._schema is not None  # set while the first file was counted
        return self._schema

    def read(self, indices: Int64s) -> Columns:
        """Rows by index, in the order asked, repeats included: `Columns` of n rows, copied.

        Raises:
            PositionError: an index below 0 or past the end.
            RecordError: a row's group is corrupt, or it holds a null integer or boolean.
            SourceError: a file was removed or replaced.
        """
        import pyarrow as pa

        wanted = inside(indices, len(self))
        order = np.argsort(wanted, kind="stable")
        ascending = wanted[order]
        cuts = np.searchsorted(ascending, self._bounds)
        parts = [
            self._group(g).take(pa.array(ascending[cuts[g] : cuts[g + 1]] - self._bounds[g]))
            for g in np.flatnonzero(np.diff(cuts)).tolist()
        ]
        table = pa.concat_tables(parts) if parts else self._arrow_schema.empty_table()
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        try:
            return to_columns(table, back)
        except NullAt as e:
            raise self._null(e.column, int(ascending[e.row]), e.kind) from None

    def _null(self, column: str, row: int, kind: str) -> RecordError:
        path, local = self._files.where(np.array([row]))[0]
        return RecordError(
            f"column {column!r} is null in row {local} of {path}, and {kind} has no null in NumPy. "
            f"Fill it or store floats, leave the column out with columns=, or skip such rows "
            'with .on_error("skip").'
        )

    def _group(self, group: int) -> pa.Table:
        if self._cache.pid != os.getpid():  # a forked child: locks may be held for ever
            self._cache = _Cache(self._cache_bytes)
        return self._cache.get(group, lambda: self._decode(group))

    def _decode(self, group: int) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = int(np.searchsorted(self._first_group, group, side="right")) - 1
        inner = group - int(self._first_group[file])
        path, names = self._files.paths[file], list(self._arrow_schema.names)
        metadata = self._metadata.get(file)
        try:
            # no memory map: a file cut while mapped kills the process. A reader each time: one
            # reader is not for several threads, and opening takes 30 µs once metadata is known
            with pq.ParquetFile(path, metadata=metadata) as opened:
                table = opened.read_row_group(inner, columns=names)
            table = plain_table(table.select(names))
        except (OSError, pa.ArrowException) as e:
            self._files.check_unchanged(file)
            if isinstance(e, OSError) and e.errno is not None:  # the disk's fault, not the data's
                raise unreadable(path, e) from e
            first = int(self._bounds[group] - self._files.bounds[file])
            raise RecordError(
                f"cannot decode rows {first} to {first + int(self._groups[file][inner]) - 1} "
                f"(row group {inner}) of {path}: {' '.join(str(e).split())}. "
                'Rewrite the file, or skip such rows with .on_error("skip").'
            ) from e
        return table.combine_chunks()

    def _open(self, file: int) -> pq.FileMetaData:
        self._files.check_unchanged(file)
        path = self._files.paths[file]
        metadata = _metadata(path)
        if not np.array_equal(_group_rows(metadata), self._groups[file]):
            raise changed(path, f"{len(self._files)} rows", f"{metadata.num_rows} in other groups")
        return metadata

    def _count(self, stat: Stat) -> int:
        path = stat.path
        metadata = _metadata(path)
        schema = _projected(path, metadata, self._columns)
        if self._schema is None:
            self._first_path, self._schema = path, schema
        _check_same(self._first_path, self._schema, path, schema)
        self._groups.append(_group_rows(metadata))
        return metadata.num_rows

    def where(self, indices: Int64s) -> list[tuple[str, int]]:
        """Each row's file, and its index in that file."""
        return self._files.where(indices)

    def fingerprint(self) -> str:
        """Hex digest of base names, sizes, counts, columns and types; directories do not enter."""
        types = [f"{field.name}: {field.type}" for field in self._arrow_schema]
        return self._files.fingerprint("parquet", *types)

    @property
    def chunk_bounds(self) -> Int64s:
        """int64[row groups + 1]: the first row of each row group across the files, and the end."""
        return self._bounds

    def close(self) -> None:
        """Forget metadata and decoded rows; reading brings them back. No file is held open."""
        self._metadata.close()
        self._cache = _Cache(self._cache_bytes)


class _Cache:
    """Decoded row groups by number, least recently used out first; two threads decode one once."""

    def __init__(self, limit: int) -> None:
        self.pid = os.getpid()
        self._limit = limit
        self._lock = threading.Lock()
        self._gates: dict[int, threading.Lock] = {}
        self._held: OrderedDict[int, pa.Table] = OrderedDict()
        self._bytes = 0

    def get(self, key: int, make: Callable[[], pa.Table]) -> pa.Table:
        with self._lock:
            if (table := self._find(key)) is not None:
                return table
            gate = self._gates.setdefault(key, threading.Lock())
        with gate:
            with self._lock:
                if (table := self._find(key)) is not None:
                    return table
            table = make()
            with self._lock:
                self._keep(key, table)
        return table

    def _find(self, key: int) -> pa.Table | None:
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key]

    def _keep(self, key: int, table: pa.Table) -> None:
        self._gates.pop(key, None)
        self._held[key] = table
        self._bytes += table.nbytes
        while self._bytes > self._limit and len(self._held) > 1:
            self._bytes -= self._held.popitem(last=False)[1].nbytes


def _metadata(path: str) -> pq.FileMetaData:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path)
    except (OSError, pa.ArrowException) as e:
        raise unreadable(path, e) from e


def _group_rows(metadata: pq.FileMetaData) -> Int64s:
    groups = range(metadata.num_row_groups)
    return np.array([metadata.row_group(i).num_rows for i in groups], np.int64)


def _distinct(columns: Sequence[str]) -> tuple[str, ...]:
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    if not names or len(set(names)) != len(names):
        raise SourceError(f"columns={list(names)} must name at least one column, each once.")
    return names


def _projected(path: str, metadata: pq.FileMetaData, names: tuple[str, ...] | None) -> pa.Schema:
    import pyarrow as pa

    schema = metadata.schema.to_arrow_schema()
    if len(set(schema.names)) != len(schema.names) or not schema.names:
        raise unreadable(path, f"its columns {schema.names} need names, each its own")
    missing = [name for name in names or () if name not in schema.names]
    if missing:
        raise SourceError(f"{path} has no column {missing}. Choose among {schema.names}.")
    chosen = schema.names if names is None else names
    return plain_table(pa.schema([schema.field(name) for name in chosen]).empty_table()).schema


def _check_same(first: str, expected: pa.Schema, path: str, schema: pa.Schema) -> None:
    def types(s: pa.Schema) -> dict[str, str]:
        return {field.name: str(field.type) for field in s}

    a, b = types(expected), types(schema)
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            raise SourceError(
                f"column {name!r} is {b.get(name, 'absent')} in {path} but "
                f"{a.get(name, 'absent')} in {first}. Rewrite one, or leave it out with columns=."
            )
