"""What the end of a Parquet file says: its row groups, its types, and where column chunks lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.block import Int64s
from pipeline.sources.complaints import unreadable
from pipeline.sources.storage.ranges import opening
from pipeline.sources.storage.spans import Span, merged
from pipeline.sources.storage.storage import Stat, Storage

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_TAIL = 64 << 10
_AT_ONCE = 256  # files
_BEHIND = 100  # bytes that readers want after a chunk of old parquet-mr (PARQUET-816)


class Footer(NamedTuple):
    """A file's metadata, and which of its leaf columns are wanted."""

    metadata: pq.FileMetaData
    leaves: tuple[int, ...]

    def spans(self, group: int) -> list[Span]:
        """Where a row group's wanted column chunks lie."""
        meta = self.metadata.row_group(group)
        return [_span(meta.column(leaf)) for leaf in self.leaves]

    def fetched(self, group: int, size: int) -> list[Span]:
        """What to read of a file of `size` bytes to decode a row group."""
        spans = [(start, min(stop + _BEHIND, size)) for start, stop in self.spans(group)]
        return merged(spans, gap=0)

    def decoded_bytes(self, group: int) -> int:
        """About what a row group's wanted columns take once they are not compressed any more."""
        meta = self.metadata.row_group(group)
        return sum(meta.column(leaf).total_uncompressed_size for leaf in self.leaves)

    def rows(self) -> Int64s:
        """int64[row groups]: rows of each."""
        groups = range(self.metadata.num_row_groups)
        return np.array([self.metadata.row_group(i).num_rows for i in groups], np.int64)


def _span(chunk: pq.ColumnChunkMetaData) -> Span:
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < (chunk.dictionary_page_offset or 0) < start:
        start = chunk.dictionary_page_offset
    return start, start + chunk.total_compressed_size


def footers(stats: Sequence[Stat], storage: Storage) -> Iterator[pq.FileMetaData]:
    """The metadata of each file: one read of their ends, a second one for large ones.

    Raises:
        SourceError: a file is no Parquet file, or cannot be read.
    """
    for first in range(0, len(stats), _AT_ONCE):
        some = stats[first : first + _AT_ONCE]
        ends = _ends(some, [_TAIL] * len(some), storage)
        lengths = [8 + int.from_bytes(end[-8:-4], "little") for end in ends]
        large = [i for i, end in enumerate(ends) if len(end) < min(lengths[i], some[i].size)]
        more = _ends([some[i] for i in large], [lengths[i] for i in large], storage)
        for i, end in zip(large, more, strict=True):
            ends[i] = end
        yield from (_parsed(stat.path, end) for stat, end in zip(some, ends, strict=True))


def _ends(stats: Sequence[Stat], lengths: Sequence[int], storage: Storage) -> list[bytes]:
    ranges = [
        stat.range(max(0, stat.size - length), stat.size)
        for stat, length in zip(stats, lengths, strict=True)
    ]
    return opening(storage, ranges)


def _parsed(path: str, end: bytes) -> pq.FileMetaData:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(pa.BufferReader(end))
    except (OSError, pa.ArrowException) as e:
        raise unreadable(path, e) from e


def leaves(metadata: pq.FileMetaData, columns: Sequence[str] | None) -> tuple[int, ...]:
    """Which leaf columns a file's wanted columns are."""
    paths = [metadata.schema.column(i).path for i in range(len(metadata.schema))]
    if columns is None:
        return tuple(range(len(paths)))
    return tuple(i for i, path in enumerate(paths) if any(_under(path, c) for c in columns))


def _under(path: str, column: str) -> bool:
    return path == column or path.startswith(column + ".")
