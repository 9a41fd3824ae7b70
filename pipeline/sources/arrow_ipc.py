"""Arrow IPC files and streams (.arrow, .feather, .ipc) as a source of `Columns`."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.block import Columns, Int64s
from pipeline.sources.arrow import Fields
from pipeline.sources.arrow_arrays import check_batch
from pipeline.sources.arrow_columns import places
from pipeline.sources.arrow_footer import Footer, digest, footers
from pipeline.sources.chunks import Chunk, is_damage
from pipeline.sources.complaints import changed, parsing, unreadable
from pipeline.sources.indices import inside
from pipeline.sources.projection import distinct, joined, projected
from pipeline.sources.storage.advice import Advice
from pipeline.sources.storage.files import Files, Paths, expand
from pipeline.sources.storage.lru import OpenFiles
from pipeline.sources.storage.ranges import RangeFile, opening
from pipeline.sources.storage.spans import Span, merge
from pipeline.sources.storage.storage import Stat, Storage, is_url
from pipeline.sources.tabular import TabularSource

if TYPE_CHECKING:
    import pyarrow as pa


_PAGE = 4096  # bytes that the kernel reads at least


class ArrowIpcSource(TabularSource):
    """Rows of Arrow IPC files (also called Feather version 2) as `Columns`, files end to end.

    Streams, such as the `.arrow` files of Hugging Face, are read as well. They have no footer: when
    opened, their messages are walked, which costs a read for each record batch.

    Values are those of `ParquetSource`. The smallest read is a record batch (`chunk_bounds`):
    compressed batches are decoded whole, those of URLs fetched whole. Local files are
    memory-mapped, so that a random row of an uncompressed file costs only its own bytes. Their size
    is checked before each read, since touching a mapped file that was truncated kills the process.
    Each batch is validated when first read: a corrupt offset is an error, never a crash.

    Args:
        paths: a path, a URL, a glob, or a list of these; globs are sorted.
        columns: in order; None for all; "a.b" is field b of the struct a.
        nulls: how null integers and booleans are read: "raise", "float" or "mask", as for
            `ParquetSource`.
        memory_map: False where local files may be truncated while they are read, or lie on a
            network file system.
        cache_bytes: how much decoded data to keep, for speed only; the batch read last is always
            kept.
        storage: how URLs are read.

    Raises:
        SourceError: a file is missing, empty, truncated or not Arrow IPC, files differ in their
            schema, or a column does not exist or is of a type that cannot be read.

    >>> import tempfile, pyarrow as pa, pyarrow.feather
    >>> path = tempfile.mkdtemp() + "/a.feather"
    >>> pyarrow.feather.write_feather(pa.table({"id": [7, 8], "text": ["to", "be"]}), path)
    >>> ArrowIpcSource(path).read(np.array([1, 0])).tree["text"].tolist()
    ['be', 'to']
    """

    _format = "arrow"
    _pickled = ("_files", "_footers", "_fields", "_columns", "_map", "_cache_bytes")

    def __init__(
        self,
        paths: Paths,
        columns: Sequence[str] | None = None,
        *,
        nulls: str = "raise",
        memory_map: bool = True,
        cache_bytes: int = 256 << 20,
        storage: Storage | None = None,
    ) -> None:
        self._columns = None if columns is None else distinct(columns)
        self._map, self._cache_bytes = memory_map, cache_bytes
        storage = storage or Storage()
        found = expand(paths, storage)
        self._footers = tuple(footers(found, partial(_opening, storage)))
        own = [
            projected(stat.path, schema, self._columns)
            for stat, schema in zip(found, _schemas(found, self._footers, storage), strict=True)
        ]
        schema: pa.Schema = own[0]
        for stat, other in zip(found, own, strict=True):
            schema = joined(found[0].path, schema, stat.path, other)
        self._fields = Fields(schema, nulls)
        files, sizes, tags = zip(*found, strict=True)
        counts = np.array([footer.rows.sum() for footer in self._footers], np.int64)
        self._files = Files(files, sizes, counts, storage, tags)
        self._begin()

    def _begin(self) -> None:
        self._opened = OpenFiles[int, _FileParts]()
        self._valid: set[int] = set()  # batches that passed validation
        coded = any(footer.codecs for footer in self._footers)
        costly = coded or not all(self._mapped(file) for file in range(len(self._footers)))
        self._chunked([footer.rows for footer in self._footers], costly=costly)
        self._advice = None if costly else Advice(self._files, self._where_to_come)

    def read(self, indices: Int64s) -> Columns:
        wanted = inside(indices, len(self))
        for file in np.unique(np.searchsorted(self._files.bounds, wanted, side="right") - 1):
            if self._mapped(int(file)):
                self._files.check_unchanged(int(file))
        return super().read(wanted)

    read.__doc__ = TabularSource.read.__doc__

    def _where_to_come(self, indices: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        # a batch is validated before its offsets are followed; a page is told of once
        wanted = inside(indices, len(self))
        chunk_of = np.searchsorted(self.chunk_bounds, wanted, side="right") - 1
        numbers = np.unique(chunk_of).tolist()
        for file in sorted({self._chunks.place(number)[0] for number in numbers}):
            self._files.check_unchanged(file)
        found = [np.zeros((3, 0), np.int64)]
        for number, chunk in zip(numbers, self._chunks.get(numbers), strict=True):
            rows = wanted[chunk_of == number] - self.chunk_bounds[number]
            file, first, end = self._chunks.place(number)[0], chunk.mapped.start, chunk.mapped.stop
            for address, size in places(chunk.columns, rows[rows < chunk.rows]):
                some = (address >= first) & (address + size <= end) & (size > 0)
                start = address[some] - first
                found.append(np.stack([np.full(len(start), file), start, start + size[some]]))
        return merge(*np.concatenate(found, axis=1), gap=_PAGE)[:3]

    def _mapped(self, file: int) -> bool:
        return self._map and not is_url(self._files.paths[file])

    def _open(self, file: int) -> _FileParts:
        self._files.check_unchanged(file)
        stat, footer = self._files.stat(file), self._footers[file]
        if self._mapped(file):
            opened = _FileParts(stat, footer, [(0, stat.size)], [_mapping(stat.path)])
        else:
            spans = footer.common()
            data = _opening(self._files.storage, [(stat, span) for span in spans])
            opened = _FileParts(stat, footer, spans, data)
        if digest(opened.part(footer.span).to_pybytes()) != footer.digest:
            raise changed(stat.path, f"{footer.rows.sum()} rows", "other batches")
        return opened

    def _decode(self, chunks: list[int]) -> list[Chunk]:
        places = [self._chunks.place(batch) for batch in chunks]
        spans = [self._footers[file].block(batch) for file, batch in places]
        remote = [
            self._files.stat(file).range(*span)
            for (file, _), span in zip(places, spans, strict=True)
            if not self._mapped(file)
        ]
        found = iter(self._fetched((file for file, _ in places), remote))
        parts: list[tuple[int, _FileParts]] = []
        for number, (file, _), span in zip(chunks, places, spans, strict=True):
            opened = self._opened.get(file, self._open)
            parts.append((number, opened if self._mapped(file) else opened.and_(span, next(found))))
        return self._cores.map(self._decoded, parts)

    def _decoded(self, part: tuple[int, _FileParts]) -> Chunk:
        import pyarrow as pa

        number, opened = part
        file, inner = self._chunks.place(number)
        start, stop = self._footers[file].block(inner)
        try:
            batch = opened.batch(inner)
            if number not in self._valid:
                check_batch(batch)
                self._valid.add(number)
            columns = self._fields.columns(pa.Table.from_batches([batch]))
        except (OSError, ValueError, EOFError, pa.ArrowException, MemoryError) as e:
            if not is_damage(e, stop - start):
                raise
            self._files.check_unchanged(file)
            why = f"bytes {start} to {stop - 1}: {e}"
            return self._bad(number, f"record batch {inner}", why)
        return Chunk(columns, batch.num_rows, mapped=opened.addresses())

    def _weigh(self, chunk: int) -> int:
        file, inner = self._chunks.place(chunk)
        start, stop = self._footers[file].block(inner)
        views = self._mapped(file) and not self._footers[file].codecs
        return 0 if views else stop - start

    def layout(self) -> list[dict[str, Any]]:
        """Facts of each file as plain data: rows, bytes, batches, codecs, columns, advice."""
        columns = {field.name: str(field.type) for field in self._fields.schema}
        return [
            _layout(self._files.stat(file), footer, columns)
            for file, footer in enumerate(self._footers)
        ]

    def close(self) -> None:
        """Drop mappings and decoded rows. Reading opens them again."""
        self._chunks.close()
        self._opened.clear()


class _FileParts(NamedTuple):
    """The parts of a file that are in memory or mapped: all of it, or what every batch needs.

    Attributes:
        stat: the file.
        footer: of the file.
        spans: ascending, the byte range of each part.
        data: the bytes of each part.
    """

    stat: Stat
    footer: Footer
    spans: Sequence[Span]
    data: Sequence[Any]

    def and_(self, span: Span, data: Any) -> _FileParts:
        """A copy with one more part."""
        parts = sorted(
            [*zip(self.spans, self.data, strict=True), (span, data)], key=lambda part: part[0]
        )
        return self._replace(spans=[s for s, _ in parts], data=[d for _, d in parts])

    def addresses(self) -> range:
        """Where a mapped file lies in memory; empty if the parts were read."""
        if len(self.spans) > 1 or isinstance(self.data[0], bytes):
            return range(0)
        return range(self.data[0].address, self.data[0].address + self.stat.size)

    def part(self, span: Span) -> pa.Buffer:
        """The bytes of a span, which must lie within one of the parts."""
        import pyarrow as pa

        i = bisect_right(self.spans, (span[0], sys.maxsize)) - 1
        start = span[0] - self.spans[i][0]
        return pa.py_buffer(self.data[i]).slice(start, span[1] - span[0])

    def batch(self, number: int) -> pa.RecordBatch:
        """A record batch; its span must be among the parts."""
        if not self.footer.is_stream:
            return self._file().get_batch(number)
        return self._stream(
            [*self.footer.before(number), self.footer.block(number)]
        ).read_next_batch()

    def schema(self) -> pa.Schema:
        return (self._stream([self.footer.span]) if self.footer.is_stream else self._file()).schema

    def _file(self) -> pa.RecordBatchFileReader:
        # a new reader each time, since one cannot be shared by threads
        import pyarrow as pa
        from pyarrow import ipc

        if len(self.spans) == 1 and self.spans[0] == (0, self.stat.size):
            return ipc.open_file(pa.BufferReader(self.data[0]))
        return ipc.open_file(RangeFile(self.stat.size, self.spans, self.data).opened())

    def _stream(self, wanted: list[Span]) -> pa.RecordBatchStreamReader:
        # a stream of just these messages
        from pyarrow import ipc

        ends = np.cumsum([0, *(stop - start for start, stop in wanted)]).tolist()
        spans, parts = list(pairwise(ends)), [self.part(span) for span in wanted]
        return ipc.open_stream(RangeFile(ends[-1], spans, parts).opened())


def _mapping(path: str) -> pa.Buffer:
    import pyarrow as pa

    try:
        with pa.memory_map(path) as mapping:
            return mapping.read_buffer()
    except OSError as e:
        raise unreadable(path, e) from e


def _opening(storage: Storage, wanted: Sequence[tuple[Stat, Span]]) -> list[bytes]:
    return opening(storage, [stat.range(*span) for stat, span in wanted])


def _schemas(stats: Sequence[Stat], found: Sequence[Footer], storage: Storage) -> list[pa.Schema]:
    ends = [(stat, footer.span) for stat, footer in zip(stats, found, strict=True)]
    schemas: list[pa.Schema] = []
    for (stat, span), footer, end in zip(ends, found, _opening(storage, ends), strict=True):
        with parsing(stat.path):
            schemas.append(_FileParts(stat, footer, [span], [end]).schema())
    return schemas


def _layout(stat: Stat, footer: Footer, columns: dict[str, str]) -> dict[str, Any]:
    sizes = footer.batches[:, 1:].sum(axis=1)
    groups = [
        {"rows": rows, "stored_bytes": size}
        for rows, size in zip(footer.rows.tolist(), sizes.tolist(), strict=True)
    ]
    if footer.codecs:
        advice = "compressed: a random row costs its batch. Shuffle with .shuffle(chunks=16)"
    else:
        advice = "not compressed: fine for random rows of local files, which are mapped"
    return {
        "path": stat.path,
        "format": "arrow",
        "bytes": stat.size,
        "rows": int(footer.rows.sum()),
        "groups": groups,
        "codecs": list(footer.codecs),
        "columns": columns,
        "advice": [advice],
    }
