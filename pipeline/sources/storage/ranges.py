"""A file object over some spans of a file, for readers that expect a whole file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.sources.complaints import unreadable
from pipeline.sources.storage.spans import Span
from pipeline.sources.storage.storage import Range, Storage

if TYPE_CHECKING:
    import pyarrow as pa


def opening(storage: Storage, ranges: Sequence[Range]) -> list[bytes]:
    """The bytes of ranges that are read while a source is being opened.

    Raises:
        SourceError: one cannot be read (a StorageError if it is a URL).
    """
    try:
        return storage.read(ranges)
    except OSError as e:
        if isinstance(e, PipelineError):
            raise
        raise unreadable(e.filename or ranges[0].path, e) from e


class RangeFile:
    """A file object for `pyarrow.PythonFile` that holds some spans of a file, without copying them.

    Args:
        size: bytes of the whole file.
        spans: ascending and disjoint.
        data: the bytes of each span.
    """

    closed = False

    def __init__(self, size: int, spans: Sequence[Span], data: Sequence[Any]) -> None:
        import pyarrow as pa

        self._size, self._position = size, 0
        self._starts = [start for start, _ in spans]
        self._buffers = [pa.py_buffer(part) for part in data]

    def opened(self) -> pa.NativeFile:
        """A pyarrow file over these spans."""
        import pyarrow as pa

        return pa.PythonFile(self, "r")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def read_buffer(self, n: int) -> pa.Buffer:
        """The next n bytes, fewer if the span ends before.

        Raises:
            OSError: the position is in none of the spans.
        """
        span = bisect_right(self._starts, self._position) - 1
        inner = self._position - self._starts[span]
        if span < 0 or inner > self._buffers[span].size:
            raise OSError(f"byte {self._position} is in no part that the footer speaks of")
        part = self._buffers[span].slice(inner, min(n, self._buffers[span].size - inner))
        self._position += part.size
        return part

    def read(self, n: int) -> bytes:
        return self.read_buffer(n).to_pybytes()

    def close(self) -> None:
        """Do nothing: the data are in memory."""
