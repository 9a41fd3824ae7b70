"""Random access to the records of ArrayRecord files."""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.checks import byte_count
from pipeline.errors import SourceError
from pipeline.sources.file_source import FileSource
from pipeline.sources.indices import inside
from pipeline.sources.riegeli.layout import layouts
from pipeline.sources.riegeli.reading import Reading
from pipeline.sources.riegeli.shards import Verify, opened
from pipeline.sources.storage.advice import Advice
from pipeline.sources.storage.files import Paths
from pipeline.sources.storage.storage import Storage


class ArrayRecordSource(FileSource):
    """Records of ArrayRecord files as bytes objects; files end to end in the order given.

    Local files go through the array_record package's reader, which checks every checksum. Of URLs
    only the bytes of the groups needed are fetched, those of one `read` concurrently; sizes are
    checked, checksums are not. Remote files written with `transpose` are copied to the cache and
    read there. A source may be shared by threads; a pickle holds paths and counts. Write files with
    `group_size:1` for random access, since reading one record costs its whole group.

    Args:
        paths: a path, a URL, a glob, or a list of these; globs are sorted.
        storage: how URLs are read.
        verify: check remote files too. Each is copied whole to the cache first.
        record_limit: bytes of one decompressed group of records at most. It guards memory against a
            damaged or hostile file.

    Raises:
        SourceError: a file is missing, empty, truncated or not an ArrayRecord file.

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

    _identity = ("array_record",)

    def __init__(
        self,
        paths: Paths,
        *,
        storage: Storage | None = None,
        verify: bool = False,
        record_limit: int | str = "1GiB",
    ) -> None:
        self._verify: Verify = "cache" if verify else ""
        self._limit = byte_count("record_limit", record_limit, 1, SourceError)
        self._files, shards = opened(paths, storage, self._verify, self._limit)
        self._reading = Reading(self._files, shards, self._verify, self._limit)
        self._advice = Advice(self._files, self._reading.spans)

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self._files, "verify": self._verify, "limit": self._limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._files, self._verify, self._limit = (state[k] for k in ("files", "verify", "limit"))
        self._reading = Reading(self._files, None, self._verify, self._limit)
        self._advice = Advice(self._files, self._reading.spans)

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
        order = np.argsort(wanted, kind="stable")
        ascending = wanted[order]
        if (ascending[1:] == ascending[:-1]).any():
            unique, back = np.unique(wanted, return_inverse=True)
            return self._reading.read(unique)[back].tolist()
        found = np.empty(len(wanted), object)
        found[order] = self._reading.read(ascending)
        return found.tolist()

    def verifying(self) -> ArrayRecordSource:
        """The same records, their checksums checked: remote files as temporary local copies."""
        same = copy(self)
        same.__setstate__({**self.__getstate__(), "verify": "scratch"})
        return same

    @property
    def chunk_bounds(self) -> Int64s:
        """int64[k + 1]: runs of whole groups in one file, each of at most 256 KiB or one group."""
        return self._runs

    @cached_property
    def _runs(self) -> Int64s:
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
        return layouts(self._files)

    def close(self) -> None:
        """Close all files; reading opens them again."""
        self._reading.close()
