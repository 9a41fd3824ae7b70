"""The native reader, for files that ours cannot take apart: transposed chunks, unknown layouts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.errors import need
from pipeline.sources.storage.files import changed, unreadable
from pipeline.sources.storage.storage import Stat, Storage

if TYPE_CHECKING:
    from array_record.python.array_record_module import (  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
        ArrayRecordReader,
    )

_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # 505 µs a random record without both
_FAULTS = (RuntimeError, IndexError, ValueError)  # what the reader raises on bad bytes


class Native:
    """A file in array_record's own reader; a remote one is copied whole first."""

    def __init__(self, stat: Stat, storage: Storage, records: int) -> None:
        self._stat, self._local = stat, storage.local(stat)
        self._lock = threading.Lock()
        self._reader = _reader(stat.path, self._local)
        if self._reader.num_records() != records:
            raise changed(stat.path, f"{records} records", f"{self._reader.num_records()}")

    def read(self, local: list[int], bad: Callable[[int, str], Exception]) -> list[bytes]:
        """Records by number; `bad` makes the error of a record that cannot be read."""
        with self._lock:
            try:
                return self._reader.read(local)
            except _FAULTS:
                return [self._read_one(i, bad) for i in local]

    def _read_one(self, i: int, bad: Callable[[int, str], Exception]) -> bytes:
        try:
            return self._reader.read([i])[0]
        except _FAULTS as e:
            # one corrupt record spoils the reader for all others
            self._reader = _reader(self._stat.path, self._local)
            reason = " ".join(str(e).split()) or type(e).__name__
            if "pread()" in reason:  # the disk's fault: another try may succeed
                raise OSError(f"{self._stat.path}: {reason}") from e
            raise bad(i, reason) from e


def native_count(stat: Stat, storage: Storage) -> int:
    """How many records a file holds, by the native reader."""
    reader = _reader(stat.path, storage.local(stat))
    n = reader.num_records()
    reader.close()
    return n


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
