"""Parquet files as a source of `Columns`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.sources.arrow import Fields
from pipeline.sources.arrow_columns import Tree
from pipeline.sources.chunks import Chunk, is_damage
from pipeline.sources.complaints import changed
from pipeline.sources.hive import Hive, hive_of, refuse_both, tell_of_folders
from pipeline.sources.parquet_footer import Footer, arrow_schema, check_decrypted, footers, leaves
from pipeline.sources.parquet_layout import layout
from pipeline.sources.parquet_noted import KIND, counted, groups_of, is_sane
from pipeline.sources.parquet_salvage import Part, salvage
from pipeline.sources.projection import distinct, joined, projected
from pipeline.sources.storage.at_once import THREADS
from pipeline.sources.storage.files import Files, Paths
from pipeline.sources.storage.lru import LRU
from pipeline.sources.storage.spans import Span
from pipeline.sources.storage.storage import Storage
from pipeline.sources.tabular import TabularSource

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_FOOTERS = 256  # how many footers are kept parsed after counting
_FOOTER_BYTES = 256 << 20  # bytes of parsed footers that are kept
_PARSED = 8  # approximate size of a parsed footer, relative to its bytes in the file


class ParquetSource(TabularSource):
    """Rows of Parquet files as `Columns`; files end to end in the order given.

    Numbers, booleans and times become NumPy arrays (timestamps in UTC), strings and binary object
    arrays, fixed-size lists of numbers arrays `[n, k]`, other lists object arrays of arrays or
    lists, structs nested dicts; dictionaries, run ends and views are decoded. A null is NaN, NaT or
    None; in integers and booleans it is an error, unless `nulls` says otherwise. Dtypes depend on
    the schema alone. Files may differ in ways that decode alike: string and large_string, the order
    of a struct's fields, a column of only nulls.

    The smallest read is a row group (`chunk_bounds`). One call fetches the column chunks of all
    groups it needs concurrently, decodes each group once, on as many cores as there are, and keeps
    groups in a cache that threads share. Files are read, not memory-mapped: truncating a mapped
    file kills the process, and mapping gains nothing where pages are decoded.

    Args:
        paths: a path, a URL, a glob, or a list of these; globs are sorted.
        columns: in order; None for all; "a.b" is field b of the struct a.
        nulls: how null integers and booleans are read. "raise": the row is a bad record. "float":
            these columns are float64, and null is NaN. "mask": null is 0, and a column "x" has a
            bool column "x_mask" beside it that is False where "x" is null.
        hive: whether the names of folders are columns, too, as in `year=2024/0.parquet`; or which
            of them are. They are int32 where every file's value is such a number, else strings.
        verify: whether to check page checksums where files have them.
        cache_bytes: how much decoded data to keep, for speed only; the row group read last is
            always kept.
        storage: how URLs are read.

    Raises:
        SourceError: a file is missing, empty, truncated, encrypted or not a Parquet file, files
            differ in their schema or in the names of their folders, or a column does not exist, is
            of a type that cannot be read, or is in a file as well as in a folder's name.

    >>> import tempfile, pyarrow as pa, pyarrow.parquet as pq
    >>> path = tempfile.mkdtemp() + "/a.parquet"
    >>> pq.write_table(pa.table({"id": [7, 8, 9], "text": ["to", "be", "or"]}), path)
    >>> rows = ParquetSource(path, columns=["text"]).read(np.array([2, 0]))
    >>> rows.tree["text"].tolist()
    ['or', 'to']
    """

    _format = "parquet"
    _pickled = ("_files", "_groups", "_fields", "_columns", "_hive", "_verify", "_cache_bytes")

    def __init__(
        self,
        paths: Paths,
        columns: Sequence[str] | None = None,
        *,
        nulls: str = "raise",
        hive: bool | Sequence[str] = False,
        verify: bool = True,
        cache_bytes: int = 256 << 20,
        storage: Storage | None = None,
    ) -> None:
        wanted = None if columns is None else distinct(columns)
        self._verify, self._cache_bytes = verify, cache_bytes
        parsed: dict[str, pq.FileMetaData] = {}
        count = partial(counted, storage or Storage(), parsed, _FOOTERS)
        self._files = Files.counted_together(paths, count, storage, kind=KIND, sane=is_sane)
        self._groups = [groups_of(facts) for facts in self._files.more]
        self._hive = hive_of(self._files.paths, hive)
        inner = [name for name in wanted or () if name not in self._hive.names]
        self._columns = None if wanted is None else tuple(inner)
        self._fields = Fields(self._one_schema(parsed, wanted), nulls)
        self._begin()
        read = enumerate(map(parsed.get, self._files.paths))
        self._parsed = {i: Footer(m, leaves(m, self._columns)) for i, m in read if m is not None}

    def _one_schema(
        self, parsed: dict[str, pq.FileMetaData], wanted: Sequence[str] | None
    ) -> pa.Schema:
        """The common schema of all files. The first is read, and those whose digest differs."""
        import pyarrow as pa

        files, schemas = self._files, [schema for _, schema in self._files.more]
        odd = [i for i, schema in enumerate(schemas) if i == 0 or schema != schemas[0]]
        absent = [files.stat(i) for i in odd if files.paths[i] not in parsed]
        found = dict(zip([a.path for a in absent], footers(absent, files.storage), strict=True))
        first, schema = files.paths[0], None
        for i in odd:
            path = files.paths[i]
            metadata = parsed.get(path) or found[path]
            every = arrow_schema(path, metadata)
            refuse_both(path, every, self._hive)
            tell_of_folders(path, every, self._columns or ())
            own = projected(path, every, self._columns)
            check_decrypted(files.stat(i), Footer(metadata, leaves(metadata, self._columns)))
            schema = own if schema is None else joined(first, schema, path, own)
        assert schema is not None  # a source has a file
        fields = {field.name: field for field in [*schema, *self._hive.schema()]}
        tops = list(fields) if wanted is None else [_top(name, fields) for name in wanted]
        return pa.schema([fields[name] for name in dict.fromkeys(tops)])

    @property
    def hive(self) -> Hive:
        """The columns that the names of folders give."""
        return self._hive

    def _begin(self) -> None:
        self._parsed: dict[int, Footer] = {}  # footers parsed while counting; each is used once
        self._footers = LRU[int, Footer](_FOOTER_BYTES, weigh=_footer_bytes)
        self._chunked(self._groups, costly=True)

    def _decode(self, chunks: list[int]) -> list[Chunk]:
        places = [self._chunks.place(chunk) for chunk in chunks]
        footers = self._footers_of([file for file, _ in places])
        both = list(zip(footers, places, strict=True))
        found = [self._located(footer, *place) for footer, place in both]
        spans = [spans if isinstance(spans, list) else [] for spans in found]
        ranges = [
            self._files.stat(file).range(*span)
            for (file, _), spans in zip(places, spans, strict=True)
            for span in spans
        ]
        data = iter(self._fetched((file for file, _ in places), ranges))
        parts = [
            Part(
                self._files.stat(file),
                footer,
                group,
                self._chunks.span(number)[0],
                spans,
                [next(data) for _ in spans],
            )
            for number, (footer, (file, group)), spans in zip(chunks, both, spans, strict=True)
        ]
        wrong = [damage if isinstance(damage, str) else "" for damage in found]
        alone = len(parts) == 1
        return self._cores.map(
            partial(self._decoded, alone), list(zip(chunks, parts, wrong, strict=True))
        )

    def _located(self, footer: Footer, file: int, group: int) -> list[Span] | str:
        # the spans to fetch for a row group; or why they are not known
        size = self._files.sizes[file]
        return footer.damage(group, size) or footer.fetched(group, size)

    def _decoded(self, alone: bool, known: tuple[int, Part, str]) -> Chunk:
        import pyarrow as pa

        number, part, wrong = known
        own = [name for name in self._fields.schema.names if name not in self._hive.names]
        names = own if self._columns is None else list(self._columns)
        if wrong:
            return self._bad(number, f"row group {part.group}", wrong)
        try:
            table = part.table(names, verify=self._verify, threads=alone)
            first, end = self._chunks.span(number)
            if table.num_rows != end - first:
                raise ValueError(f"it holds {table.num_rows} rows, not {end - first}")
            late = part.out_of_nanoseconds(verify=self._verify)
            return Chunk(self._tree(number, table), table.num_rows, out_of_range=late)
        except (OSError, ValueError, pa.ArrowException, MemoryError) as e:
            if not is_damage(e, sum(map(len, part.data))):
                raise
            self._files.check_unchanged(self._files.paths.index(part.stat.path))
            table, late, error = salvage(part, names, e, verify=self._verify)
        return Chunk(self._tree(number, table), table.num_rows, error, late)

    def _tree(self, chunk: int, table: pa.Table) -> Tree:
        return self._fields.columns(self._hive.added(table, self._chunks.place(chunk)[0]))

    def _weigh(self, chunks: list[int]) -> list[int]:
        found: list[int] = []
        for first in range(0, len(chunks), THREADS):  # so that not all footers are held together
            places = [self._chunks.place(chunk) for chunk in chunks[first : first + THREADS]]
            footers = self._footers_of([file for file, _ in places])
            both = zip(footers, places, strict=True)
            found += [footer.decoded_bytes(group) for footer, (_, group) in both]
        return found

    def _footers_of(self, files: Sequence[int]) -> list[Footer]:
        return self._footers.get_many(files, self._open)

    def _open(self, files: list[int]) -> list[Footer]:
        for file in files:
            self._files.check_opening(file)
        parsed = {file: self._parsed.pop(file, None) for file in files}
        found = {file: footer for file, footer in parsed.items() if footer is not None}
        absent = [file for file in files if file not in found]
        read = footers([self._files.stat(file) for file in absent], self._files.storage)
        for file, metadata in zip(absent, read, strict=True):
            found[file] = footer = Footer(metadata, leaves(metadata, self._columns))
            if not np.array_equal(footer.rows(), self._groups[file]):
                was = f"{self._groups[file].sum()} rows"
                raise changed(self._files.paths[file], was, f"{metadata.num_rows} in other groups")
        return [found[file] for file in files]

    def verifying(self) -> ParquetSource:
        """The same rows, page checksums checked where files have them."""
        same = copy(self)
        same.__setstate__({**self.__getstate__(), "_verify": True})
        return same

    def layout(self) -> list[dict[str, Any]]:
        """Facts about each file as plain data: rows, bytes, row groups, codecs, columns, advice.

        >>> import tempfile, pyarrow as pa, pyarrow.parquet as pq
        >>> path = tempfile.mkdtemp() + "/a.parquet"
        >>> pq.write_table(pa.table({"id": [7, 8, 9]}), path)
        >>> facts = ParquetSource(path).layout()[0]
        >>> facts["rows"], facts["columns"], facts["codecs"], len(facts["groups"])
        (3, {'id': 'int64'}, ['SNAPPY'], 1)
        """
        files = range(len(self._files.paths))
        return [layout(self._files.stat(f), self._footers_of([f])[0]) for f in files]

    def fingerprint(self) -> str:
        """As for other files; with `hive`, from each file's values, too."""
        described = [*self._fields.described(), *self._hive.described()]
        return self._files.fingerprint(self._format, *described)

    def close(self) -> None:
        """Drop footers and decoded rows; reading loads them again. No file is held open."""
        self._parsed.clear()
        self._chunks.close()
        self._footers.clear()


def _top(column: str, names: Iterable[str]) -> str:
    # the column that holds "a.b"
    whole = [name for name in names if column == name or column.startswith(name + ".")]
    return max(whole, key=len)


def _footer_bytes(footer: Footer) -> int:
    return _PARSED * footer.metadata.serialized_size
