"""Parquet footers: row groups, types, and where the column chunks lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.block import Int64s
from pipeline.sources.complaints import parsing, unreadable
from pipeline.sources.storage.ranges import RangeFile, opening
from pipeline.sources.storage.spans import Span, merged
from pipeline.sources.storage.storage import Stat, Storage

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_TAIL = 64 << 10
_AT_ONCE = 256  # files whose footers are read together
_BEHIND = 100  # bytes that readers want after a column chunk by old parquet-mr (PARQUET-816)


class Footer(NamedTuple):
    """A file's metadata, and the indices of the selected leaf columns."""

    metadata: pq.FileMetaData
    leaves: tuple[int, ...]

    def damage(self, group: int, size: int) -> str:
        """Why the selected columns of a row group cannot be located; "" if they can.

        Where a column chunk's metadata are damaged or encrypted, accessing them from Python makes
        pyarrow abort the process, while pyarrow's reader raises. So call `spans`, or anything else
        that calls `column`, only if this returns "".

        Args:
            group: the row group's number.
            size: bytes of the file.
        """
        if not (error := _probed(self.metadata, size, group, self._paths(self.leaves))):
            return ""
        for leaf in self.leaves:  # find the first column that fails alone
            (path,) = self._paths([leaf])
            if alone := _probed(self.metadata, size, group, [path]):
                return f"column {path!r}: {alone}"
        return error

    def _paths(self, leaves: Sequence[int]) -> list[str]:
        return [self.metadata.schema.column(leaf).path for leaf in leaves]

    def spans(self, group: int) -> list[Span]:
        """The spans of the selected column chunks of a row group."""
        meta = self.metadata.row_group(group)
        return [_span(meta.column(leaf)) for leaf in self.leaves]

    def fetched(self, group: int, size: int) -> list[Span]:
        """The spans to read for decoding a row group, in a file of `size` bytes."""
        spans = [(start, min(stop + _BEHIND, size)) for start, stop in self.spans(group)]
        return merged(spans, gap=0)

    def decoded_bytes(self, group: int) -> int:
        """Approximate decoded bytes of the selected columns of a row group."""
        share = len(self.leaves) / max(1, len(self.metadata.schema))
        return int(max(0, self.metadata.row_group(group).total_byte_size) * share)

    def rows(self) -> Int64s:
        """int64[row groups]: rows of each row group."""
        groups = range(self.metadata.num_row_groups)
        return np.array([self.metadata.row_group(i).num_rows for i in groups], np.int64)

    def codecs(self, size: int) -> list[str]:
        """Compression codecs of the selected columns of the first row group; "?" if unknown.

        Args:
            size: bytes of the file.
        """
        if not self.metadata.num_row_groups or self.damage(0, size):
            return []
        first, names = self.metadata.row_group(0), set[str]()
        for leaf in self.leaves:  # `compression` aborts the process where the reader raises
            error = _error(_Probe(size, zeros=True), self.metadata, 0, self._paths([leaf]))
            names.add("?" if "codec" in error else first.column(leaf).compression)
        return sorted(names)

    def int96(self) -> list[str]:
        """Paths of the selected leaf columns that hold the deprecated 96-bit timestamps."""
        columns = [self.metadata.schema.column(leaf) for leaf in self.leaves]
        return [column.path for column in columns if column.physical_type == "INT96"]


class _Probe(RangeFile):
    """A file that records whether it was read. A read fails, or gives zeros."""

    def __init__(self, size: int, *, zeros: bool) -> None:
        super().__init__(size, [], [])
        self._zeros, self.reached = zeros, False

    def read_buffer(self, n: int) -> pa.Buffer:
        import pyarrow as pa

        self.reached = True
        if not self._zeros:
            raise OSError("only a probe")
        self.seek(n, 1)
        return pa.py_buffer(np.zeros(n, np.uint8))


def _probed(metadata: pq.FileMetaData, size: int, group: int, columns: list[str]) -> str:
    # pyarrow's error about the columns' metadata, which it checks before reading the columns
    probe = _Probe(size, zeros=False)
    error = _error(probe, metadata, group, columns)
    return "" if probe.reached else error


def _error(probe: _Probe, metadata: pq.FileMetaData, group: int, columns: list[str]) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # all columns together: the reader locates each before it reads any
        with pq.ParquetFile(probe.opened(), metadata=metadata, pre_buffer=True) as file:
            file.read_row_group(group, columns=columns, use_threads=False)
    except MemoryError:
        raise
    except (OSError, ValueError, IndexError, pa.ArrowException) as e:
        return " ".join(str(e).split()).rstrip(".")
    return ""


def _span(chunk: pq.ColumnChunkMetaData) -> Span:
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < (chunk.dictionary_page_offset or 0) < start:
        start = chunk.dictionary_page_offset
    return start, start + chunk.total_compressed_size


def footers(stats: Sequence[Stat], storage: Storage) -> Iterator[pq.FileMetaData]:
    """The metadata of each file: one read of all file ends, and a second one for large footers.

    Raises:
        SourceError: a file is not a Parquet file, or cannot be read.
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

    with parsing(path):
        metadata = pq.read_metadata(pa.BufferReader(end))
        groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        if min(groups, default=0) < 0:
            raise ValueError(f"its footer is damaged: a row group of {min(groups)} rows")
        if metadata.num_rows not in (0, sum(groups)):  # some writers leave it 0
            said = f"{metadata.num_rows} rows, and row groups of {sum(groups)} together"
            raise ValueError(f"its footer is damaged: it speaks of {said}")
        return metadata


def arrow_schema(path: str, metadata: pq.FileMetaData) -> pa.Schema:
    """The Arrow schema of a file.

    Raises:
        SourceError: a type is unknown, or a name is not UTF-8.
    """
    with parsing(path):
        return metadata.schema.to_arrow_schema()


def check_decrypted(stat: Stat, footer: Footer) -> None:
    """Refuse a file whose footer can be read but whose selected columns are encrypted.

    Raises:
        SourceError: the message names the column.
    """
    rows = footer.rows()
    if rows.any() and "crypt" in (why := footer.damage(int(np.argmax(rows > 0)), stat.size)):
        raise unreadable(stat.path, f"it is encrypted: {why}")


def leaves(metadata: pq.FileMetaData, columns: Sequence[str] | None) -> tuple[int, ...]:
    """Indices of the leaf columns below the given columns; None selects all."""
    paths = [metadata.schema.column(i).path for i in range(len(metadata.schema))]
    if columns is None:
        return tuple(range(len(paths)))
    return tuple(i for i, path in enumerate(paths) if any(_under(path, c) for c in columns))


def _under(path: str, column: str) -> bool:
    return path == column or path.startswith(column + ".")
