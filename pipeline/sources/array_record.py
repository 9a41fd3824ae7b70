"""Where records live: ArrayRecord files, one or many, at random."""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.sources.indices import inside
from pipeline.sources.riegeli.layout import layouts
from pipeline.sources.riegeli.reading import Reading
from pipeline.sources.riegeli.shards import opened
from pipeline.sources.storage.files import Files, Paths
from pipeline.sources.storage.storage import Storage


class ArrayRecordSource:
    """Records of ArrayRecord files, as bytes; files end to end in the order given.

    The files' indexes are read at once, their records when asked for: all records of one call are
    fetched together, from any number of files, and taken apart by arithmetic on arrays, so that
    `read` of many is far cheaper than many of one. Threads share a source; pickles carry paths and
    counts. Write files with `group_size:1` for random access: a record costs its whole group. Files
    written with `transpose` go through the array_record package, remote ones as a local copy.

    Args:
        paths: a path, a URL, a glob, or a list of these; globs are sorted.
        storage: how URLs are reached.
        verify: check the checksums of what is read, not its sizes only. It finds any flipped bit,
            and takes about 10 µs a kilobyte where many records are read at once, more where few.

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

    def __init__(
        self, paths: Paths, *, storage: Storage | None = None, verify: bool = False
    ) -> None:
        self._verify = verify
        self._files, shards = opened(paths, storage, verify)
        self._reading = Reading(self._files, shards, verify)

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        files = self._files.paths
        return f"ArrayRecordSource({len(files)} files from {files[0]!r}, {len(self)} records)"

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self._files, "verify": self._verify}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._files, self._verify = state["files"], state["verify"]
        self._reading = Reading(self._files, None, self._verify)

    def read(self, indices: Int64s) -> list[bytes]:
        """Records by index: a list of n bytes objects, in the order asked, repeats included.

        Raises:
            PositionError: an index below 0 or past the end.
            RecordError: a record is corrupt; those of other groups stay readable.
            SourceError: a file was removed, cut or replaced.
            OSError: a file cannot be reached now.
        """
        wanted = inside(indices, len(self))
        if len(wanted) == 1:
            return self._reading.read(wanted).tolist()
        unique, back = np.unique(wanted, return_inverse=True)
        return self._reading.read(unique)[back].tolist()

    @property
    def files(self) -> Files:
        """Which files these are, as they were counted."""
        return self._files

    def verifying(self) -> ArrayRecordSource:
        """The same records, their checksums checked."""
        same = copy(self)
        same.__setstate__({"files": self._files, "verify": True})
        return same

    def where(self, indices: Int64s) -> list[tuple[str, int]]:
        """Each record's file, and its index in that file."""
        return self._files.where(indices)

    def fingerprint(self) -> str:
        """Hex digest of base names, sizes, counts and ends: it survives a move elsewhere."""
        return self._files.fingerprint("array_record")

    @cached_property
    def chunk_bounds(self) -> Int64s:
        """int64[k + 1]: runs of whole groups, at most 256 KiB or one group each, in one file."""
        bounds = self._files.bounds
        spans = zip(bounds[:-1].tolist(), bounds[1:].tolist(), self._files.more, strict=True)
        parts = [np.arange(start, stop, run) for start, stop, run in spans]
        return np.concatenate([*parts, [len(self)]]).astype(np.int64)

    def layout(self) -> list[dict[str, Any]]:
        """How each file is laid out, and what follows from that; plain data.

        Each dict has `path`, `bytes`, `records`, `decoded_bytes`, `chunks`, `group_size`,
        `chunk_bytes` (least, mean, most), `codec`, `transposed`, `options` (the writer's) and
        `advice`, a list of sentences.

        >>> import tempfile
        >>> from array_record.python.array_record_module import ArrayRecordWriter
        >>> path = tempfile.mkdtemp() + "/a.array_record"
        >>> writer = ArrayRecordWriter(path, "group_size:100,snappy")
        >>> for word in (b"to", b"be", b"or"):
        ...     _ = writer.write(word)
        >>> writer.close()
        >>> facts = ArrayRecordSource(path).layout()[0]
        >>> facts["records"], facts["group_size"], facts["codec"], facts["advice"]
        (3, 3, 'snappy', ['3 records a group: a record read alone costs its whole group'])
        """
        return layouts(self._files, self._verify)

    def close(self) -> None:
        """Close all files; reading opens them again."""
        self._reading.close()
