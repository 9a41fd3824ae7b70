"""The array_record package's reader. It checks every checksum and supports every layout."""

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

# with read-ahead a random record would take 505 µs
_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_PART = 64 << 20
_FAULTS = (RuntimeError, IndexError, ValueError)  # what the reader raises for damaged bytes


class BadRecordError(Exception):
    """Record number `record` of the file cannot be read."""

    def __init__(self, record: int, reason: str) -> None:
        super().__init__(reason)
        self.record = record


class Native:
    """One file in array_record's reader; a remote file is copied whole first. Safe in threads.

    Args:
        stat: the file.
        storage: how it is read.
        records: how many it must hold.
        scratch: copy a remote file to an unnamed temporary file instead of the cache.

    Raises:
        SourceError: it is not an ArrayRecord file, or holds another number of records.
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
        # idle readers; each serves one thread at a time, as seeking in a shared one is racy
        self._idle = [_reader(stat.path, self._local)]
        if self._idle[0].num_records() != records:
            raise changed(stat.path, f"{records} records", f"{self._idle[0].num_records()}")

    def read(self, local: list[int]) -> list[bytes]:
        """Records by number, in the order given.

        Raises:
            BadRecordError: a record is damaged.
            OSError: the disk failed.
        """
        # A seek and a read take 4 µs. One call for many records is no faster, reads the file's
        # whole index each time, and returns empty records if the file was truncated meanwhile.
        reader, i = self._borrowed(), 0
        found: list[bytes] = []
        try:
            for i in local:
                reader.seek(i)
                found.append(reader.read())
        except _FAULTS as e:  # drop the reader: it would fail for other records too
            reason = " ".join(str(e).split()) or type(e).__name__
            if "pread()" in reason:  # the disk failed: a retry may succeed
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
    """How many records a file holds, according to the native reader."""
    reader = _reader(stat.path, storage.local(stat))
    n = reader.num_records()
    reader.close()
    return n


def _copied(stat: Stat, storage: Storage) -> int:
    """The descriptor of a copy without a name. Closing it frees the disk space."""
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

    # as bytes, since a name need not be UTF-8
    reader = ArrayRecordReader(os.fsencode(local), options=_OPTIONS)
    if reader.ok():  # the constructor never raises
        return reader
    try:
        reader.close()  # it raises the actual error
    except RuntimeError as e:
        raise unreadable(path, str(e) or "no valid end of an ArrayRecord file") from e
    raise unreadable(path, "not an ArrayRecord file")
