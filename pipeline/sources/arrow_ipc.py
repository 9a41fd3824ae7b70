"""Arrow IPC files and streams (.arrow, .feather, .ipc) as a source of `Columns`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.block import Columns, Int64s
from pipeline.sources.arrow import Fields, is_viewed
from pipeline.sources.arrow_arrays import check_batch
from pipeline.sources.arrow_columns import places
from pipeline.sources.arrow_footer import Footer, digest, footers
from pipeline.sources.arrow_parts import FileParts, mapped, reading
from pipeline.sources.arrow_places import frame_of
from pipeline.sources.chunks import Chunk, is_damage
from pipeline.sources.complaints import changed, parsing
from pipeline.sources.indices import inside
from pipeline.sources.projection import distinct, joined, projected
from pipeline.sources.storage.advice import Advice
from pipeline.sources.storage.at_once import at_once
from pipeline.sources.storage.files import Files, Paths, expand
from pipeline.sources.storage.lru import OpenFiles
from pipeline.sources.storage.spans import merge
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
        self._footers = tuple(footers(found, partial(reading, storage)))
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
        self._opened = OpenFiles[int, FileParts]()
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
        if self._advice is not None:
            self._advice.now(wanted)
        return super().read(wanted)

    read.__doc__ = TabularSource.read.__doc__

    def _where_to_come(self, indices: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        # a batch is validated before its offsets are followed; a page is told of once
        wanted = inside(indices, len(self))
        chunk_of = np.searchsorted(self.chunk_bounds, wanted, side="right") - 1
        numbers = np.unique(chunk_of).tolist()
        for file in sorted({self._chunks.place(number)[0] for number in numbers}):
            self._files.check_unchanged(file)
        order, empty = np.argsort(chunk_of, kind="stable"), np.zeros(0, np.int64)
        cuts = np.searchsorted(chunk_of[order], numbers[1:])
        file, start, size = [empty], [empty], [empty]
        for number, chunk, rows in zip(
            numbers, self._chunks.get(numbers), np.split(wanted[order], cuts), strict=True
        ):
            rows = rows - self.chunk_bounds[number]
            rows = rows if chunk.rows > rows[-1] else rows[rows < chunk.rows]
            for at, n in places(chunk.columns, rows):
                if len(at) and int(at[0]) in chunk.mapped:
                    file.append(np.full(len(at), self._chunks.place(number)[0]))
                    start.append(at - chunk.mapped.start)
                    size.append(n)
        begin = np.concatenate(start)
        found = merge(np.concatenate(file), begin, begin + np.concatenate(size), gap=_PAGE)
        return found.file, found.start, found.stop

    def _mapped(self, file: int) -> bool:
        return self._map and not is_url(self._files.paths[file])

    def _open(self, file: int) -> FileParts:
        self._files.check_opening(file)
        stat, footer = self._files.stat(file), self._footers[file]
        if self._mapped(file):
            opened = FileParts(
                stat, footer, [(0, stat.size)], [mapped(stat.path, told=self._advice is not None)]
            )
        else:
            spans = footer.common()
            data = reading(self._files.storage, [(stat, span) for span in spans])
            opened = FileParts(stat, footer, spans, data)
        if digest(opened.part(footer.span).to_pybytes()) != footer.digest:
            raise changed(stat.path, f"{footer.rows.sum()} rows", "other batches")
        return opened

    def _decode(self, chunks: list[int]) -> list[Chunk]:
        places = [self._chunks.place(batch) for batch in chunks]
        if self._is_cold:
            self._tell([(file, *self._footers[file].message(batch)) for file, batch in places])
        spans = [self._footers[file].block(batch) for file, batch in places]
        remote = [
            self._files.stat(file).range(*span)
            for (file, _), span in zip(places, spans, strict=True)
            if not self._mapped(file)
        ]
        found = iter(self._fetched((file for file, _ in places), remote))
        parts: list[tuple[int, FileParts]] = []
        files = sorted({file for file, _ in places})
        far = any(not self._mapped(file) for file in files if file not in self._opened)
        opening = at_once(lambda file: self._opened.get(file, self._open), files, far=far)
        ready = dict(zip(files, opening, strict=True))
        for number, (file, _), span in zip(chunks, places, spans, strict=True):
            opened = ready[file]
            parts.append((number, opened if self._mapped(file) else opened.and_(span, next(found))))
        return self._cores.map(self._decoded, parts)

    def _decoded(self, part: tuple[int, FileParts]) -> Chunk:
        import pyarrow as pa

        number, opened = part
        file, inner = self._chunks.place(number)
        start, stop = self._footers[file].block(inner)
        try:
            batch = opened.batch(inner)
            if number not in self._valid:
                self._tell_frame(file, opened.addresses(), batch)
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

    def _tell_frame(self, file: int, at: range, batch: pa.RecordBatch) -> None:
        # tell of what decoding a batch reads: where values lie, and all of columns to be converted
        if not at or not self._is_cold:
            return
        batch.validate()  # lengths alone: with wrong ones, looking at parts ends the process
        found: list[tuple[int, int]] = []
        for field in self._fields.schema:
            column = batch.column(field.name)
            if is_viewed(column, field.type):
                found += frame_of(column)
            else:
                found += [(b.address, b.size) for b in column.buffers() if b is not None]
        inner = [(first - at.start, size) for first, size in found if first in at]
        self._tell([(file, start, start + size) for start, size in inner])

    @property
    def _is_cold(self) -> bool:
        return self._advice is not None and self._advice.cold

    def _tell(self, spans: list[tuple[int, int, int]]) -> None:
        # the pages of a mapped file would come one after another
        if spans and self._advice is not None:
            self._advice.tell_spans(*np.array(spans, np.int64).T)

    def _weigh(self, chunks: list[int]) -> list[int]:
        return [self._weight(*self._chunks.place(chunk)) for chunk in chunks]

    def _weight(self, file: int, batch: int) -> int:
        start, stop = self._footers[file].block(batch)
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


def _schemas(stats: Sequence[Stat], found: Sequence[Footer], storage: Storage) -> list[pa.Schema]:
    ends = [(stat, footer.span) for stat, footer in zip(stats, found, strict=True)]
    schemas: list[pa.Schema] = []
    for (stat, span), footer, end in zip(ends, found, reading(storage, ends), strict=True):
        with parsing(stat.path):
            schemas.append(FileParts(stat, footer, [span], [end]).schema())
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
