"""Rows of Parquet and Arrow files as Arrow tables, with the types of the files."""

from __future__ import annotations

import io
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.block import Int64s
from pipeline.dataset import Dataset
from pipeline.sources import ParquetSource
from pipeline.sources.arrow_arrays import check_batch
from pipeline.sources.arrow_types import plain_schema
from pipeline.sources.hive import Hive
from pipeline.sources.parquet_footer import Footer, leaves
from pipeline.sources.parquet_int96 import out_of_nanoseconds
from pipeline.sources.storage.location import Range, Stat, is_url
from pipeline.sources.storage.storage import Storage
from pipeline.sources.tabular import TabularSource
from pipeline.types import At

if TYPE_CHECKING:
    import pyarrow as pa

_KEPT = 256 << 20  # bytes of decoded row groups that are kept


def tabular(ds: Dataset) -> TabularSource | None:
    """The Parquet or Arrow source whose rows a dataset has unchanged, in any order; or None."""
    source = None if ds.top.skips else ds.top.node.unchanged
    if not isinstance(source, TabularSource) or source.fields.nulls != "raise":
        return None
    # columns= may select parts of structs: such rows are written as they are in the dataset
    whole = plain_schema(Tables(source).schema)
    fits = all(whole.field(field.name).type == field.type for field in source.fields.schema)
    return source if fits else None


class _Reader(NamedTuple):
    """One open file.

    Attributes:
        schema: the file's own.
        bounds: int64[groups + 1], the first row of each of its groups, and the end.
        group: reads a group by number.
    """

    schema: pa.Schema
    bounds: Int64s
    group: Any


class Tables:
    """Rows of a source's files as tables of a common schema.

    Args:
        source: of Parquet or Arrow files.
    """

    def __init__(self, source: TabularSource) -> None:
        self._source, self._files = source, source.files
        self._readers: dict[int, _Reader] = {}
        self._kept: dict[tuple[int, int], pa.Table] = {}
        self.schema = self._unified()

    def _unified(self) -> pa.Schema:
        import pyarrow as pa

        schemas = [self._reader(i).schema for i in range(len(self._files.paths))]
        distinct = [s for i, s in enumerate(schemas) if i == 0 or not s.equals(schemas[0])]
        whole = pa.unify_schemas(distinct, promote_options="permissive")
        names = [field.name for field in self._source.fields.schema]
        return pa.schema([whole.field(name) for name in names], metadata=schemas[0].metadata)

    def rows(self, ds: Dataset, positions: Int64s) -> pa.Table:
        """Rows of a dataset over this source, in order.

        Raises:
            OSError, pa.ArrowException: some cannot be read.
        """
        import pyarrow as pa

        at = At.of_rows(positions, max(1, len(ds)))
        records = ds.top.origin(at).record
        files = np.searchsorted(self._files.bounds, records, side="right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(files)) + 1).tolist(), len(records)]
        parts = [self.schema.empty_table()]
        for start, stop in pairwise(cuts):
            if start < stop:
                file = int(files[start])
                local = records[start:stop] - self._files.bounds[file]
                parts += self._of_file(file, local)
        return pa.concat_tables(parts)

    def _of_file(self, file: int, rows: Int64s) -> list[pa.Table]:
        bounds = self._reader(file).bounds
        groups = np.searchsorted(bounds, rows, side="right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(rows)]
        found: list[pa.Table] = []
        for start, stop in pairwise(cuts):
            group = int(groups[start])
            table, local = self._group(file, group), rows[start:stop] - bounds[group]
            if (np.diff(local) == 1).all():
                found.append(table.slice(int(local[0]), len(local)))
            else:  # `take` does not support views
                found += [table.slice(row, 1) for row in local.tolist()]
        return found

    def _group(self, file: int, group: int) -> pa.Table:
        if (file, group) not in self._kept:
            table = self._reader(file).group(group).select(self.schema.names)
            table = table if table.schema.equals(self.schema) else table.cast(self.schema)
            while self._kept and sum(t.nbytes for t in self._kept.values()) > _KEPT - table.nbytes:
                del self._kept[next(iter(self._kept))]
            self._kept[file, group] = table
        return self._kept[file, group]

    def _reader(self, file: int) -> _Reader:
        if file not in self._readers:
            while len(self._readers) > 64:
                del self._readers[next(iter(self._readers))]
            self._files.check_unchanged(file)
            handle = _opened(self._files.stat(file), self._files.storage)
            if isinstance(self._source, ParquetSource):
                self._readers[file] = self._parquet(self._source.hive, handle, file)
            else:
                self._readers[file] = self._arrow(handle, file)
        return self._readers[file]

    def _parquet(self, hive: Hive, handle: Any, number: int) -> _Reader:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = pq.ParquetFile(handle, page_checksum_verification=True)
        names = [name for name in self._source.fields.schema.names if name not in hive.names]
        old = Footer(file.metadata, leaves(file.metadata, names)).int96()

        def read(group: int, unit: str) -> pa.Table:
            again = pq.ParquetFile(handle, metadata=file.metadata, coerce_int96_timestamp_unit=unit)
            return again.read_row_group(group, columns=old)

        def group(group: int) -> pa.Table:
            if old and out_of_nanoseconds(partial(read, group)):
                raise pa.ArrowInvalid("times that 64-bit nanoseconds cannot hold")
            table = file.read_row_group(group, columns=names)
            for batch in table.to_batches():
                check_batch(batch)  # a writer that follows a wrong index may crash the process
            return hive.added(table, number)

        counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        own = file.schema_arrow
        schema = pa.schema([*own, *hive.schema()], own.metadata) if hive.names else own
        return _Reader(schema, np.cumsum([0, *counts]), group)

    def _arrow(self, handle: Any, file: int) -> _Reader:
        import pyarrow as pa

        try:
            reader = pa.ipc.open_file(handle)
        except pa.ArrowInvalid:
            handle.seek(0)
            table = pa.ipc.open_stream(handle).read_all()
            return _Reader(table.schema, np.array([0, len(table)]), lambda _: table)

        def group(number: int) -> pa.Table:
            batch = reader.get_batch(number)
            batch.validate(full=True)
            return pa.Table.from_batches([batch])

        first, end = self._files.bounds[file : file + 2]
        chunks = np.unique(self._source.chunk_bounds)
        bounds = chunks[(chunks >= first) & (chunks <= end)] - first
        if len(bounds) != reader.num_record_batches + 1:  # some batches are empty
            counts = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
            bounds = np.cumsum([0, *counts])
        return _Reader(reader.schema, bounds, group)


def _opened(stat: Stat, storage: Storage) -> Any:
    import pyarrow as pa

    if not is_url(stat.path):
        return pa.OSFile(stat.path)  # not mapped: truncating a mapped file kills the process
    return pa.PythonFile(io.BufferedReader(_Ranges(stat, storage), 1 << 20), "r")


class _Ranges(io.RawIOBase):
    """A remote file as a file object, read by ranges."""

    def __init__(self, stat: Stat, storage: Storage) -> None:
        self._stat, self._storage, self._at = stat, storage, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._stat.size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._stat.size)
        wanted: Range = self._stat.range(self._at, max(self._at, stop))
        data = self._storage.read([wanted])[0]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
