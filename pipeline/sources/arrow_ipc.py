"""Where records live: Arrow IPC files (.arrow, .feather, .ipc); rows come as columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.block import Columns, Int64s
from pipeline.sources import arrow
from pipeline.sources.arrow_footer import Footer, digest, footers
from pipeline.sources.chunks import Chunk, Chunks, Cores, Decoder
from pipeline.sources.complaints import changed, unreadable
from pipeline.sources.indices import inside
from pipeline.sources.projection import check_same, distinct, projected
from pipeline.sources.storage.files import Files, Paths, expand
from pipeline.sources.storage.lru import OpenFiles
from pipeline.sources.storage.ranges import RangeFile, opening
from pipeline.sources.storage.spans import Span
from pipeline.sources.storage.storage import Stat, Storage, is_url
from pipeline.sources.tabular import TabularSource

if TYPE_CHECKING:
    import pyarrow as pa


class ArrowIpcSource(TabularSource):
    """Rows of Arrow IPC files (also called Feather version 2) as `Columns`, files end to end.

    Values are those of `ParquetSource`. Record batches (`chunk_bounds`) are what is read at once:
    compressed ones are decoded, those of URLs fetched whole. Local files are mapped, so that a
    random row of an uncompressed file costs its own bytes; their size is checked before each read,
    as touching a mapped file that was cut kills the process. Each batch is validated when first
    read: a corrupt offset is an error, never a crash.

    Args:
        paths: a path, a URL, a glob, or a list of these; globs are sorted.
        columns: in order; None for all; "a.b" is field b of the struct a.
        memory_map: False where local files may be cut while they are read, or lie on a network
            file system.
        cache_bytes: how much decoded data to keep, for speed only; the batch read last is always
            kept.
        storage: how URLs are reached.

    Raises:
        SourceError: a file is missing, empty, truncated or no Arrow IPC file, files differ in
            their schema, or a column does not exist.

    >>> import tempfile, pyarrow as pa, pyarrow.feather
    >>> path = tempfile.mkdtemp() + "/a.feather"
    >>> pyarrow.feather.write_feather(pa.table({"id": [7, 8], "text": ["to", "be"]}), path)
    >>> ArrowIpcSource(path).read(np.array([1, 0])).tree["text"].tolist()
    ['be', 'to']
    """

    _format = "arrow"

    def __init__(
        self,
        paths: Paths,
        columns: Sequence[str] | None = None,
        *,
        memory_map: bool = True,
        cache_bytes: int = 256 << 20,
        storage: Storage | None = None,
    ) -> None:
        self._columns = None if columns is None else distinct(columns)
        self._map, self._cache_bytes = memory_map, cache_bytes
        storage = storage or Storage()
        found = expand(paths, storage)
        self._footers = tuple(footers(found, partial(_opening, storage)))
        schemas = _schemas(found, self._footers, storage)
        self._schema: pa.Schema = projected(found[0].path, schemas[0], self._columns)
        for stat, schema in zip(found, schemas, strict=True):
            schema = projected(stat.path, schema, self._columns)
            check_same(found[0].path, self._schema, stat.path, schema)
        files, sizes, tags = zip(*found, strict=True)
        counts = np.array([footer.rows.sum() for footer in self._footers], np.int64)
        self._files = Files(files, sizes, counts, storage, tags)
        self._begin()

    def _begin(self) -> None:
        self._opened = OpenFiles[int, _Opened]()
        self._cores = Cores()
        self._valid: set[int] = set()  # batches found whole
        empty = arrow.columns_of(self._schema.empty_table(), self._schema)
        coded = any(footer.codecs for footer in self._footers)
        costly = coded or not all(self._mapped(file) for file in range(len(self._footers)))
        counts = [footer.rows for footer in self._footers]
        far = any(is_url(path) for path in self._files.paths)
        decoder = Decoder(self._decode, self._weigh, empty, costly, far)
        self._chunks = Chunks(self._files, counts, decoder, self._cache_bytes)

    def __getstate__(self) -> dict[str, Any]:
        names = ("_files", "_footers", "_schema", "_columns", "_map", "_cache_bytes")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def read(self, indices: Int64s) -> Columns:
        """Rows by index, in the order asked, repeats included: `Columns` of n rows, copied.

        Raises:
            PositionError: an index below 0 or past the end.
            RecordError: a row's batch is corrupt, or it holds a null integer or boolean.
            SourceError: a file was removed or replaced.
            OSError: storage failed.
        """
        wanted = inside(indices, len(self))
        for file in np.unique(np.searchsorted(self._files.bounds, wanted, side="right") - 1):
            if self._mapped(int(file)):
                self._files.check_unchanged(int(file))
        return self._chunks.read(wanted)

    def _mapped(self, file: int) -> bool:
        return self._map and not is_url(self._files.paths[file])

    def _open(self, file: int) -> _Opened:
        self._files.check_unchanged(file)
        stat, footer = self._files.stat(file), self._footers[file]
        if self._mapped(file):
            opened = _Opened(stat, footer, [(0, stat.size)], [_mapping(stat.path)])
            end = opened.data[0].slice(footer.span[0]).to_pybytes()
        else:
            spans = footer.common()
            data = _opening(self._files.storage, [(stat, span) for span in spans])
            opened, end = _Opened(stat, footer, spans, data), data[-1]
        if digest(end) != footer.digest:
            raise changed(stat.path, f"{footer.rows.sum()} rows", "other batches")
        return opened

    def _decode(self, batches: list[int]) -> list[Chunk]:
        places = [self._chunks.place(batch) for batch in batches]
        spans = [self._footers[file].block(batch) for file, batch in places]
        remote = [
            self._files.stat(file).range(*span)
            for (file, _), span in zip(places, spans, strict=True)
            if not self._mapped(file)
        ]
        found = iter(self._fetched((file for file, _ in places), remote))
        parts: list[tuple[int, _Opened]] = []
        for number, (file, _), span in zip(batches, places, spans, strict=True):
            opened = self._opened.get(file, self._open)
            parts.append((number, opened if self._mapped(file) else opened.and_(span, next(found))))
        return self._cores.map(self._decoded, parts)

    def _decoded(self, part: tuple[int, _Opened]) -> Chunk:
        import pyarrow as pa

        number, opened = part
        file, inner = self._chunks.place(number)
        try:
            batch = opened.reader().get_batch(inner)
            if number not in self._valid:
                batch.validate(full=True)
                self._valid.add(number)
            table = arrow.plain_table(pa.Table.from_batches([batch]))
        except MemoryError:
            raise
        except (OSError, pa.ArrowException) as e:
            self._files.check_unchanged(file)
            return Chunk({}, 0, self._bad(number, e))
        return Chunk(arrow.columns_of(table, self._schema), table.num_rows)

    def _bad(self, number: int, error: Exception) -> str:
        file, inner = self._chunks.place(number)
        first, end = self._chunks.span(number)
        start, stop = self._footers[file].block(inner)
        why = " ".join(str(error).split()).rstrip(".")
        return (
            f"cannot decode rows {first} to {end - 1} (record batch {inner}) of "
            f"{self._files.paths[file]}: bytes {start} to {stop - 1}: {why}. "
            'Rewrite the file, or skip such rows with .on_error("skip").'
        )

    def _weigh(self, number: int) -> int:
        file, inner = self._chunks.place(number)
        start, stop = self._footers[file].block(inner)
        views = self._mapped(file) and not self._footers[file].codecs
        return 0 if views else stop - start

    def layout(self) -> list[dict[str, Any]]:
        """Facts of each file as plain data: rows, bytes, batches, codecs, columns, advice."""
        columns = {field.name: str(field.type) for field in self._schema}
        return [
            _layout(self._files.stat(file), footer, columns)
            for file, footer in enumerate(self._footers)
        ]

    def close(self) -> None:
        """Forget mappings and decoded rows; reading brings them back."""
        self._chunks.close()
        self._opened.clear()


class _Opened(NamedTuple):
    """The parts of a file that are at hand: all of it, or what every batch needs.

    Attributes:
        stat: the file.
        footer: of the file.
        spans: rising, where the parts lie.
        data: the bytes of each.
    """

    stat: Stat
    footer: Footer
    spans: Sequence[Span]
    data: Sequence[Any]

    def and_(self, span: Span, data: Any) -> _Opened:
        """With one part more."""
        parts = sorted(
            [*zip(self.spans, self.data, strict=True), (span, data)], key=lambda part: part[0]
        )
        return self._replace(spans=[s for s, _ in parts], data=[d for _, d in parts])

    def reader(self) -> pa.RecordBatchFileReader:
        """A reader that finds these parts alone; one is not for several threads."""
        import pyarrow as pa
        from pyarrow import ipc

        if len(self.spans) == 1 and self.spans[0] == (0, self.stat.size):
            return ipc.open_file(pa.BufferReader(self.data[0]))
        return ipc.open_file(RangeFile(self.stat.size, self.spans, self.data).opened())


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
    import pyarrow as pa

    ends = [(stat, footer.span) for stat, footer in zip(stats, found, strict=True)]
    schemas: list[pa.Schema] = []
    for (stat, span), footer, end in zip(ends, found, _opening(storage, ends), strict=True):
        try:
            schemas.append(_Opened(stat, footer, [span], [end]).reader().schema)
        except (OSError, pa.ArrowException) as e:
            raise unreadable(stat.path, e) from e
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
