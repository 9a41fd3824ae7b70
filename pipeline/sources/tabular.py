"""What sources of columns share whose files are read chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from pipeline.block import Columns, Int64s
from pipeline.sources.arrow import Fields
from pipeline.sources.chunks import Chunk, Chunks, Cores, Decoder
from pipeline.sources.file_source import FileSource
from pipeline.sources.indices import inside
from pipeline.sources.storage.location import is_url
from pipeline.sources.storage.storage import Range


class TabularSource(FileSource):
    """Files of columns, chunk after chunk. A format says how its chunks are found and decoded."""

    _format: ClassVar[str]  # names it in fingerprints
    _pickled: ClassVar[tuple[str, ...]]  # attributes that a pickle holds; the rest is made afresh
    _unit = "rows"
    _fields: Fields
    _cache_bytes: int
    _chunks: Chunks
    _cores: Cores

    def _begin(self) -> None:
        """Make what a pickle does not hold: caches and threads."""
        raise NotImplementedError

    def _decode(self, chunks: list[int]) -> list[Chunk]:
        """Chunks by number, fetched together."""
        raise NotImplementedError

    def _weigh(self, chunk: int) -> int:
        """Bytes that fetching a chunk takes."""
        raise NotImplementedError

    @property
    def fields(self) -> Fields:
        """Names and plain types of the columns wanted, and what becomes of nulls."""
        return self._fields

    def _chunked(self, counts: Sequence[Int64s], *, costly: bool) -> None:
        # counts: rows of each chunk of each file
        self._cores = Cores()
        far = any(map(is_url, self._files.paths))
        empty = self._fields.check(self._files.paths[0])
        decoder = Decoder(self._decode, self._weigh, empty, costly=costly, far=far)
        self._chunks = Chunks(self._files, counts, decoder, self._cache_bytes)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._pickled}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def read(self, indices: Int64s) -> Columns:
        """Rows by index, in the order asked, repeats included: `Columns` of n rows, copied.

        Of a chunk with a corrupt page, the rows before it can still be read.

        Raises:
            PositionError: an index below 0 or past the end.
            RecordError: a row is in a corrupt part of its chunk, or holds a value that NumPy
                cannot hold: a null integer or boolean, a time out of range.
            SourceError: a file was removed or replaced.
            OSError: storage failed.
        """
        return self._chunks.read(indices)

    def fingerprint(self) -> str:
        """Hex digest of base names, sizes, counts, columns and types; directories do not enter."""
        return self._files.fingerprint(self._format, *self._fields.described())

    @property
    def chunk_bounds(self) -> Int64s:
        """int64[chunks + 1]: the first row of each row group or batch of all files, and the end."""
        return self._chunks.bounds

    @property
    def horizon(self) -> int:
        """How many records ahead are worth knowing; 0 for local files."""
        return self._chunks.horizon

    def ahead(self, indices: Int64s) -> None:
        """Read ahead, in the background: a sample of the next `horizon` records, in order.

        What is read ahead takes a quarter of the cache at most.
        """
        self._chunks.ahead(inside(indices, len(self)))

    def _fetched(self, files: Iterable[int], ranges: Sequence[Range]) -> list[bytes]:
        # ranges of some files; where these cannot be read, perhaps as they were replaced or cut
        try:
            return self._files.storage.read(ranges)
        except OSError:
            for file in sorted(set(files)):
                self._files.check_unchanged(file)
            raise

    def _bad(self, chunk: int, name: str, error: object) -> Chunk:
        """A chunk of which no row can be read; `name` is what the format calls it, and numbers."""
        file, _ = self._chunks.place(chunk)
        first, end = self._chunks.span(chunk)
        why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        return Chunk.unreadable(self._files.paths[file], (first, end), name, why)
