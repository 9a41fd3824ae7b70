"""What sources of columns share whose files are read in chunks."""

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
    """A source of columns that are read chunk by chunk. A format finds and decodes its chunks."""

    _format: ClassVar[str]  # its name in fingerprints
    _pickled: ClassVar[tuple[str, ...]]  # attributes that a pickle holds; `_begin` makes the rest
    _unit = "rows"
    _fields: Fields
    _cache_bytes: int
    _chunks: Chunks
    _cores: Cores

    def _begin(self) -> None:
        """Create what a pickle does not hold: caches and threads."""
        raise NotImplementedError

    def _decode(self, chunks: list[int]) -> list[Chunk]:
        """Decode chunks by number. Their bytes are requested concurrently."""
        raise NotImplementedError

    def _weigh(self, chunks: list[int]) -> list[int]:
        """Approximate bytes of memory that reading each of these chunks takes."""
        raise NotImplementedError

    @property
    def fields(self) -> Fields:
        """Names and plain types of the selected columns, and how nulls are read."""
        return self._fields

    def _chunked(self, counts: Sequence[Int64s], *, costly: bool) -> None:
        # counts: for each file, rows of each chunk
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
        """Rows by index, in the order given, repeats included: `Columns` of n rows, copied.

        In a chunk with a corrupt page, the rows before that page can still be read.

        Raises:
            PositionError: an index is negative or beyond the end.
            RecordError: a row is in a corrupt part of its chunk, or holds a value that NumPy cannot
                hold: a null integer or boolean, a time out of range.
            SourceError: a file was removed or replaced.
            OSError: a read failed.
        """
        return self._chunks.read(indices)

    def fingerprint(self) -> str:
        """Hex digest of the files (as in `Files.fingerprint`), the columns and their types."""
        return self._files.fingerprint(self._format, *self._fields.described())

    @property
    def chunk_bounds(self) -> Int64s:
        """int64[chunks + 1]: the first row of each row group or record batch, and the end."""
        return self._chunks.bounds

    @property
    def horizon(self) -> int:
        """How many rows ahead `ahead` should be told of; 0 where nothing is gained."""
        return self._chunks.horizon or super().horizon

    def ahead(self, indices: Int64s) -> None:
        """Read chunks of URLs ahead, in the background; tell the kernel of rows of local files.

        Chunks take at most a quarter of the cache.

        Args:
            indices: an evenly spaced sample of the next `horizon` rows, in order.
        """
        if self._chunks.horizon:
            self._chunks.ahead(inside(indices, len(self)))
        else:
            super().ahead(indices)

    def _fetched(self, files: Iterable[int], ranges: Sequence[Range]) -> list[bytes]:
        # the bytes of ranges; if that fails, perhaps because a file was replaced or truncated
        try:
            return self._files.storage.read(ranges)
        except OSError:
            for file in sorted(set(files)):
                self._files.check_unchanged(file)
            raise

    def _bad(self, chunk: int, name: str, error: object) -> Chunk:
        """A chunk of which no row can be read.

        Args:
            chunk: its number.
            name: what the format calls it, such as "row group 3".
            error: why it cannot be read.
        """
        file, _ = self._chunks.place(chunk)
        first, end = self._chunks.span(chunk)
        why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        return Chunk.unreadable(self._files.paths[file], (first, end), name, why)
