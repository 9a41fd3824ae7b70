"""array_record's own reader of one file. It checks every checksum and knows every layout."""

from __future__ import annotations

import os
import tempfile
import weakref
from typing import TYPE_CHECKING

from pipeline.errors import need
from pipeline.sources.storage.files import changed, unreadable
from pipeline.sources.storage.storage import Stat, Storage, is_url

if TYPE_CHECKING:
    from array_record.python.array_record_module import (  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
        ArrayRecordReader,
    )

# with read-ahead a random record takes 505 µs
_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_PART = 64 << 20
_FAULTS = (RuntimeError, IndexError, ValueError)  # what the reader raises on bad bytes


class BadRecordError(Exception):
    """Record `record` of the file cannot be read."""

    def __init__(self, record: int, reason: str) -> None:
        super().__init__(reason)
        self.record = record


class Native:
    """A file in array_record's reader; a remote one is copied whole first. Threads share it.

    Args:
        stat: the file.
        storage: how it is reached.
        records: how many it must hold.
        scratch: copy a remote file to an unnamed temporary file, not to the cache.

    Raises:
        SourceError: it is no ArrayRecord file, or holds another number of records.
        StorageError: a remote file cannot be copied.
    """

    def __init__(
        self, stat: Stat, storage: Storage, records: int, *, scratch: bool = False
    ) -> None:
        self._stat = stat
        if scratch and is_url(stat.path):
            copy = _copied(stat, storage)
            weakref.finalize(self, os.close, copy)
            self._local = f"/proc/self/fd/{copy}"
        else:
            self._local = storage.local(stat)
        # A reader serves one thread at a time: seeking in a shared one is racy.
        self._idle = [_reader(stat.path, self._local)]
        if self._idle[0].num_records() != records:
            raise changed(stat.path, f"{records} records", f"{self._idle[0].num_records()}")

    def read(self, local: list[int]) -> list[bytes]:
        """Records by number, in the order asked.

        Raises:
            BadRecordError: a record is damaged.
            OSError: the disk failed.
        """
        # A seek and a read take 4 µs. One call for many records is no quicker, walks the file's
        # whole index each time, and gives empty records where the file was cut meanwhile.
        reader, i = self._borrowed(), 0
        found: list[bytes] = []
        try:
            for i in local:
                reader.seek(i)
                found.append(reader.read())
        except _FAULTS as e:  # the reader is not used again: it would fail for other records too
            reason = " ".join(str(e).split()) or type(e).__name__
            if "pread()" in reason:  # the disk's fault: another try may succeed
                raise OSError(f"{self._stat.path}: {reason}") from e
            raise BadRecordError(i, reason) from e
        self._idle.append(reader)
        return found

    def _borrowed(self) -> ArrayRecordReader:
        try:
            return self._idle.pop()
        except IndexError:
            return _reader(self._stat.path, self._local)


def native_count(stat: Stat, storage: Storage) -> int:
    """How many records a file holds, by the native reader."""
    reader = _reader(stat.path, storage.local(stat))
    n = reader.num_records()
    reader.close()
    return n


def _copied(stat: Stat, storage: Storage) -> int:
    """The descriptor of a copy without a name, which takes up space while it is open."""
    with tempfile.TemporaryFile() as copy:
        for start in range(0, stat.size, _PART):
            copy.writelines(storage.read([stat.range(start, min(start + _PART, stat.size))]))
        copy.flush()
        return os.dup(copy.fileno())


def _reader(path: str, local: str) -> ArrayRecordReader:
    try:
        from array_record.python.array_record_module import (  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
            ArrayRecordReader,
        )
    except ImportError as e:
        raise need("array-record", "array_record") from e

    reader = ArrayRecordReader(local, options=_OPTIONS)
    if reader.ok():  # the constructor never raises
        return reader
    try:
        reader.close()  # which raises what went wrong
    except RuntimeError as e:
        raise unreadable(path, str(e) or "no valid end of an ArrayRecord file") from e
    raise unreadable(path, "not an ArrayRecord file")
