"""The parts of an Arrow IPC file that are in memory or mapped, and what pyarrow reads of them."""

from __future__ import annotations

import mmap
import sys
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.sources.arrow_footer import Footer
from pipeline.sources.complaints import unreadable
from pipeline.sources.storage.advice import can_tell
from pipeline.sources.storage.ranges import RangeFile, opening
from pipeline.sources.storage.spans import Span
from pipeline.sources.storage.storage import Stat, Storage

if TYPE_CHECKING:
    import pyarrow as pa


class FileParts(NamedTuple):
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

    def and_(self, span: Span, data: Any) -> FileParts:
        """A copy with one more part."""
        parts = sorted(
            [*zip(self.spans, self.data, strict=True), (span, data)], key=lambda part: part[0]
        )
        return self._replace(spans=[s for s, _ in parts], data=[d for _, d in parts])

    def addresses(self) -> range:
        """Where a mapped file lies in memory; empty if its parts were read."""
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
        """The schema; the footer's span, or the stream's first, must be among the parts."""
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


def mapped(path: str, *, told: bool) -> pa.Buffer:
    """The bytes of a local file, mapped.

    Args:
        path: of the file.
        told: whether the kernel is told what will be read, so that a touched page need not bring
            the megabytes around it, as it must where batches are decoded whole.

    Raises:
        SourceError: it cannot be mapped.
    """
    import pyarrow as pa

    try:
        with open(path, "rb") as f:
            data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as e:  # an empty file cannot be mapped
        raise unreadable(path, e) from e
    if told and can_tell():
        data.madvise(mmap.MADV_RANDOM)
    return pa.py_buffer(data)


def reading(storage: Storage, wanted: Sequence[tuple[Stat, Span]]) -> list[bytes]:
    """The bytes of spans of files that are read while a source is being opened."""
    return opening(storage, [stat.range(*span) for stat, span in wanted])
