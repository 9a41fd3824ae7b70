"""Where records live: ArrayRecord files, one or many, at random."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import RecordError, SourceError
from pipeline.sources.files import Files, Paths, changed, unreadable
from pipeline.sources.handles import Handles
from pipeline.sources.indices import inside
from pipeline.sources.storage import Stat, Storage

if TYPE_CHECKING:
    from array_record.python.array_record_module import (  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
        ArrayRecordReader,
    )

_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # 505 µs a random record without both
_FAULTS = (RuntimeError, IndexError, ValueError)  # what the reader raises on bad bytes


class _Open(NamedTuple):
    reader: Any
    lock: threading.Lock  # seek, then read: two calls on one shared cursor
    many: int  # from how many records on one call for all of them is cheaper


class ArrayRecordSource:
    """Records of ArrayRecord files, as bytes; files end to end in the order given.

    Files are counted at once and opened again when first read. Threads share one reader a file;
    pickles carry paths and counts. Write files with `group_size:1`: other sizes are read rightly,
    but a random record then costs its whole group.

    Args:
        paths: a path, a glob, or a list of these; globs are sorted.
        storage: how URLs are reached.

    Raises:
        SourceError: a file is missing, empty, truncated or no ArrayRecord file.

    >>> import tempfile
    >>> from array_record.python.array_record_module import ArrayRecordWriter
    >>> path = tempfile.mkdtemp() + "/a.array_record"
    >>> writer = ArrayRecordWriter(path, "group_size:1")
    >>> for word in (b"to", b"be", b"or"):
    ...     _ = writer.write(word)
    >>> writer.close()
    >>> ArrayRecordSource(path).read(np.array([2, 0, 2]))
    [b'or', b'to', b'or']
    """

    def __init__(self, paths: Paths, *, storage: Storage | None = None) -> None:
        self._files = Files.counted(paths, _count, storage)
        self._handles = Handles(self._open)

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        files = self._files.paths
        return f"ArrayRecordSource({len(files)} files from {files[0]!r}, {len(self)} records)"

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self._files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._files = state["files"]
        self._handles = Handles(self._open)

    def read(self, indices: Int64s) -> list[bytes]:
        """Records by index: a list of n bytes objects, in the order asked, repeats included.

        Raises:
            PositionError: an index below 0 or past the end.
            RecordError: a record is corrupt; the others stay readable.
            SourceError: a file was removed or replaced.
        """
        unique, back = np.unique(inside(indices, len(self)), return_inverse=True)
        found: list[bytes] = []
        for file, local in self._files.split(unique):
            found += self._read_file(file, local)
        return [found[i] for i in back.tolist()]

    def _read_file(self, file: int, local: Int64s) -> list[bytes]:
        opened = self._handles.get(file)
        try:
            records = _read_many(opened, local)
        except _FAULTS:
            self._handles.drop(file)  # one corrupt record spoils the reader for all others
            records = self._read_each(file, local)
        # a file cut under an open reader gives too few records, or empty ones, and no error
        if len(records) != len(local) or b"" in records:
            self._files.check_unchanged(file)
        if len(records) != len(local):
            raise unreadable(self._files.paths[file], "it gave too few records")
        return records

    def _read_each(self, file: int, local: Int64s) -> list[bytes]:
        records: list[bytes] = []
        for i in local.tolist():
            try:
                records.append(_seek(self._handles.get(file), i))
            except _FAULTS as e:
                self._handles.drop(file)
                self._files.check_unchanged(file)
                raise _unreadable_record(self._files.paths[file], i, e) from e
        return records

    def _open(self, file: int) -> _Open:
        self._files.check_unchanged(file)
        path, n = self._files.paths[file], int(self._files.counts[file])
        reader = _reader(path)
        if reader.num_records() != n:
            raise changed(path, f"{n} records", f"{reader.num_records()}")
        # one call for many walks the whole chunk index (1.5 to 7 ns a chunk, and some 200 µs), then
        # takes 1.6 µs a record; seek and read take 2.6 and, holding the GIL, never wait for it
        return _Open(reader, threading.Lock(), max(2, (256 + n // 500) // _group_size(reader)))

    def where(self, indices: Int64s) -> list[tuple[str, int]]:
        """Each record's file, and its index in that file."""
        return self._files.where(indices)

    def fingerprint(self) -> str:
        """Hex digest of base names, sizes and counts: it survives a move to another directory."""
        return self._files.fingerprint("array_record")

    def close(self) -> None:
        """Close all files; reading opens them again."""
        self._handles.close()


def _read_many(opened: _Open, local: Int64s) -> list[bytes]:
    """Ascending, distinct records by the cheapest call."""
    n, first, last = len(local), int(local[0]), int(local[-1])
    if n >= 16 and last - first == n - 1:
        return opened.reader.read(first, last + 1)
    if n >= opened.many:
        return opened.reader.read(local.tolist())
    with opened.lock:
        return [(opened.reader.seek(i), opened.reader.read())[1] for i in local.tolist()]


def _seek(opened: _Open, i: int) -> bytes:
    with opened.lock:
        opened.reader.seek(i)
        return opened.reader.read()


def _reader(path: str) -> ArrayRecordReader:
    from array_record.python.array_record_module import (  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
        ArrayRecordReader,
    )

    reader = ArrayRecordReader(path, options=_OPTIONS)
    if reader.ok():  # the constructor never raises
        return reader
    try:
        reader.close()  # which raises what went wrong
    except RuntimeError as e:
        raise unreadable(path, str(e) or "no valid end of an ArrayRecord file") from e
    raise unreadable(path, "not an ArrayRecord file")


def _count(stat: Stat) -> int:
    reader = _reader(stat.path)
    n = reader.num_records()
    reader.close()
    return n


def _group_size(reader: Any) -> int:
    options = dict(o.split(":", 1) for o in reader.writer_options_string().split(",") if ":" in o)
    return max(1, int(options.get("group_size", 1)))


def _unreadable_record(path: str, i: int, e: Exception) -> SourceError:
    reason = " ".join(str(e).split()) or type(e).__name__
    if "pread()" in reason:  # the disk's fault: another try may succeed, so it is never skipped
        return unreadable(path, f"record {i}: {reason}")
    return RecordError(
        f"cannot read record {i} of {path}: {reason}. "
        'Rewrite the file, or skip such records with .on_error("skip").'
    )
