"""Where records live: Parquet files, one or many; rows come as columns."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.block import Columns, Int64s
from pipeline.sources import arrow
from pipeline.sources.chunks import Chunk, Chunks, Cores, Decoder
from pipeline.sources.complaints import changed
from pipeline.sources.parquet_footer import Footer, footers, leaves
from pipeline.sources.parquet_layout import layout
from pipeline.sources.parquet_noted import KIND, counted, groups_of, is_sane
from pipeline.sources.parquet_salvage import Part, salvage
from pipeline.sources.projection import check_same, distinct, projected
from pipeline.sources.storage.files import Files, Paths
from pipeline.sources.storage.lru import LRU
from pipeline.sources.storage.storage import Storage, is_url
from pipeline.sources.tabular import TabularSource

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_FOOTERS = 256  # kept parsed from counting
_FOOTER_BYTES = 256 << 20  # of parsed footers kept
_PARSED = 8  # about how many times as large as its bytes a parsed footer is


class ParquetSource(TabularSource):
    """Rows of Parquet files as `Columns`; files end to end in the order given.

    Numbers, booleans and times are NumPy arrays (timestamps in UTC), strings and binary object
    arrays, fixed-size lists of numbers arrays `[n, k]`, other lists object arrays of arrays or
    lists, structs nested dicts; dictionaries are decoded. A null is NaN, NaT or None; in integers
    and booleans it is an error. Dtypes follow from the schema alone.

    Parquet's smallest read is a row group (`chunk_bounds`). The column chunks of all groups that a
    call needs are fetched at once, each group is decoded once, several on as many cores as there
    are, and kept in a cache that threads share. Files are read, not mapped: a mapped file that is
    cut kills the process, and mapping gains nothing where pages are decoded.

    Args:
        paths: a path, a URL, a glob, or a list of these; globs are sorted.
        columns: in order; None for all; "a.b" is field b of the struct a.
        verify: whether to check page checksums where files have them.
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

    _format = "parquet"

    def __init__(
        self,
        paths: Paths,
        columns: Sequence[str] | None = None,
        *,
        verify: bool = True,
        cache_bytes: int = 256 << 20,
        storage: Storage | None = None,
    ) -> None:
        self._columns = None if columns is None else distinct(columns)
        self._verify, self._cache_bytes = verify, cache_bytes
        parsed: dict[str, pq.FileMetaData] = {}
        count = partial(counted, storage or Storage(), parsed, _FOOTERS)
        self._files = Files.counted_together(paths, count, storage, kind=KIND, sane=is_sane)
        self._groups = [groups_of(facts) for facts in self._files.more]
        self._schema = self._one_schema(parsed)
        read = enumerate(map(parsed.get, self._files.paths))
        self._begin({i: Footer(m, leaves(m, self._columns)) for i, m in read if m is not None})

    def _one_schema(self, parsed: dict[str, pq.FileMetaData]) -> pa.Schema:
        """The schema of all files; those that are noted to have the first one's are not read."""
        files, schemas = self._files, [schema for _, schema in self._files.more]
        odd = [i for i, schema in enumerate(schemas) if i == 0 or schema != schemas[0]]
        absent = [files.stat(i) for i in odd if files.paths[i] not in parsed]
        found = dict(zip([a.path for a in absent], footers(absent, files.storage), strict=True))
        first = None
        for path in (files.paths[i] for i in odd):
            metadata = parsed.get(path) or found[path]
            schema = projected(path, metadata.schema.to_arrow_schema(), self._columns)
            first = first or (path, schema)
            check_same(*first, path, schema)
        assert first is not None  # a source has a file
        return first[1]

    def _begin(self, parsed: dict[int, Footer]) -> None:
        self._parsed = parsed  # from counting, each used once
        self._footers = LRU[int, Footer](_FOOTER_BYTES, weigh=_footer_bytes)
        self._cores = Cores()
        empty = arrow.columns_of(self._schema.empty_table(), self._schema)
        far = any(is_url(path) for path in self._files.paths)
        decoder = Decoder(self._decode, self._weigh, empty, costly=True, far=far)
        self._chunks = Chunks(self._files, self._groups, decoder, self._cache_bytes)

    def __getstate__(self) -> dict[str, Any]:
        names = ("_files", "_groups", "_schema", "_columns", "_verify", "_cache_bytes")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin({})

    def read(self, indices: Int64s) -> Columns:
        """Rows by index, in the order asked, repeats included: `Columns` of n rows, copied.

        Of a row group with a corrupt page, the rows before it can still be read.

        Raises:
            PositionError: an index below 0 or past the end.
            RecordError: a row is in a corrupt part of its group, or holds a null integer or
                boolean.
            SourceError: a file was removed or replaced.
            OSError: storage failed.
        """
        return self._chunks.read(indices)

    def _decode(self, groups: list[int]) -> list[Chunk]:
        places = [self._chunks.place(group) for group in groups]
        wanted = [self._footer(f).fetched(g, self._files.sizes[f]) for f, g in places]
        ranges = [
            self._files.stat(file).range(*span)
            for (file, _), spans in zip(places, wanted, strict=True)
            for span in spans
        ]
        found = iter(self._fetched((file for file, _ in places), ranges))
        parts = [
            Part(
                self._files.stat(file),
                self._footer(file),
                group,
                self._chunks.span(number)[0],
                spans,
                [next(found) for _ in spans],
            )
            for number, (file, group), spans in zip(groups, places, wanted, strict=True)
        ]
        return self._cores.map(partial(self._decoded, len(parts) == 1), parts)

    def _decoded(self, alone: bool, part: Part) -> Chunk:
        import pyarrow as pa

        names = list(self._columns or self._schema.names)
        try:
            with part.opened(verify=self._verify) as file:
                table = file.read_row_group(part.group, columns=names, use_threads=alone)
            table = arrow.plain_table(table)
        except MemoryError:
            raise
        except (OSError, pa.ArrowException) as e:
            self._files.check_unchanged(self._files.paths.index(part.stat.path))
            table, error = salvage(part, names, e, verify=self._verify)
            return Chunk(arrow.columns_of(table, self._schema), table.num_rows, error)
        return Chunk(arrow.columns_of(table, self._schema), table.num_rows)

    def _weigh(self, group: int) -> int:
        file, inner = self._chunks.place(group)
        return self._footer(file).decoded_bytes(inner)

    def _footer(self, file: int) -> Footer:
        return self._footers.get(file, self._open)

    def _open(self, file: int) -> Footer:
        parsed = self._parsed.pop(file, None)
        self._files.check_unchanged(file)
        if parsed is not None:
            return parsed
        stat = self._files.stat(file)
        metadata = next(footers([stat], self._files.storage))
        footer = Footer(metadata, leaves(metadata, self._columns))
        if not np.array_equal(footer.rows(), self._groups[file]):
            was = f"{self._groups[file].sum()} rows"
            raise changed(stat.path, was, f"{metadata.num_rows} in other groups")
        return footer

    def verifying(self) -> ParquetSource:
        """The same rows, page checksums checked where files have them."""
        same = copy(self)
        same.__setstate__({**self.__getstate__(), "_verify": True})
        return same

    def layout(self) -> list[dict[str, Any]]:
        """Facts of each file as plain data: rows, bytes, row groups, codecs, columns, advice.

        >>> import tempfile, pyarrow as pa, pyarrow.parquet as pq
        >>> path = tempfile.mkdtemp() + "/a.parquet"
        >>> pq.write_table(pa.table({"id": [7, 8, 9]}), path)
        >>> facts = ParquetSource(path).layout()[0]
        >>> facts["rows"], facts["columns"], facts["codecs"], len(facts["groups"])
        (3, {'id': 'int64'}, ['SNAPPY'], 1)
        """
        files = range(len(self._files.paths))
        return [layout(self._files.stat(file), self._footer(file)) for file in files]

    def close(self) -> None:
        """Forget metadata and decoded rows; reading brings them back. No file is held open."""
        self._parsed.clear()
        self._chunks.close()
        self._footers.clear()


def _footer_bytes(footer: Footer) -> int:
    return _PARSED * footer.metadata.serialized_size
