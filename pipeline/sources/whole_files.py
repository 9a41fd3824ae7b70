"""Whole files as records."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.checks import flag
from pipeline.sources.file_source import FileSource
from pipeline.sources.indices import inside
from pipeline.sources.storage.files import Files, Paths
from pipeline.sources.storage.gather import read_spans
from pipeline.sources.storage.location import lasting, named
from pipeline.sources.storage.manifest import Facts
from pipeline.sources.storage.storage import Storage

_SAMPLE = 64  # files whose contents enter the fingerprint


class FilesSource(FileSource):
    """Files as records, such as images: `{"path": str, "bytes": bytes}` each, in sorted order.

    Args:
        paths: a path, a URL, a glob such as "img/**/*.jpg", or a list of these; globs are sorted.
        label: whether to add the field `label`, the name of the file's folder.
        storage: how URLs are read.

    Raises:
        SourceError: a file is missing.

    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name, data in [("cat/1.jpg", b"meow"), ("dog/1.jpg", b"woof")]:
    ...     (folder / name).parent.mkdir()
    ...     _ = (folder / name).write_bytes(data)
    >>> source = FilesSource(folder / "**/*.jpg", label=True)
    >>> [(row["label"], row["bytes"]) for row in source.read(np.array([1, 0]))]
    [('dog', b'woof'), ('cat', b'meow')]
    """

    _unit = "records"

    def __init__(
        self, paths: Paths, *, label: bool = False, storage: Storage | None = None
    ) -> None:
        self._label = flag("label", label)
        self._files = Files.counted_together(
            paths, lambda found: [Facts(1)] * len(found), storage, empty=True
        )
        self._digest = ""

    def read(self, indices: Int64s) -> list[dict[str, Any]]:
        """Files by index, in the order given, repeats included: path (as in `where`) and contents.

        Raises:
            PositionError: an index is negative or beyond the end.
            SourceError: a file was removed, truncated or replaced.
        """
        wanted = inside(indices, len(self))
        sizes = np.array(self._files.sizes, np.int64)[wanted]
        found: list[dict[str, Any]] = []
        for i, data in zip(
            wanted.tolist(),
            read_spans(self._files, wanted, np.zeros_like(sizes), sizes),
            strict=True,
        ):
            path = self._files.paths[i]
            row: dict[str, Any] = {"path": path, "bytes": data}
            found.append(row | {"label": _folder(path)} if self._label else row)
        return found

    def fingerprint(self) -> str:
        """32 hex digits from sizes, `label`, and the files' paths below their common folder.

        Of the contents, the first and last 64 KiB of 64 evenly spaced files count.
        """
        if not self._digest:
            files = self._files
            some = np.unique(np.linspace(0, len(self) - 1, min(_SAMPLE, len(self)), dtype=int))
            names = _below(tuple(map(lasting, files.paths)), folders=self._label)
            sample = Files(
                tuple(files.paths[i] for i in some),
                tuple(files.sizes[i] for i in some),
                files.counts[some],
                files.storage,
                tuple(files.tags[i] for i in some),
            )
            digest = hashlib.blake2b(digest_size=16)
            for name, size in zip(names, files.sizes, strict=True):
                digest.update(f"{len(name)} {name} {size}\n".encode("utf-8", "surrogateescape"))
            self._digest = sample.fingerprint("files", str(self._label), digest.hexdigest())
        return self._digest

    @property
    def chunk_bounds(self) -> Int64s:
        """int64[files + 1]: each file is a chunk."""
        return self._files.bounds

    def layout(self) -> list[dict[str, Any]]:
        """Facts about each file: path, bytes, records."""
        files = zip(self._files.paths, self._files.sizes, strict=True)
        return [{"path": path, "bytes": size, "records": 1} for path, size in files]

    def close(self) -> None:
        """Do nothing: no file is held open."""


def _folder(path: str) -> str:
    return os.path.basename(os.path.dirname(named(path)))


def _below(paths: tuple[str, ...], *, folders: bool) -> list[str]:
    """Paths below the folder that all of them share; with `folders`, at least below its parent.

    >>> _below(("/d/img/1", "/d/img/2"), folders=False), _below(("/d/img/1",), folders=True)
    (['1', '2'], ['img/1'])
    """
    parts = [path.split("/") for path in paths]
    least, most = min(parts), max(parts)
    shared = next((i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), None)
    depth = min(map(len, parts)) - (2 if folders else 1)
    start = depth if shared is None else min(shared, depth)
    return ["/".join(names[start:]) for names in parts]
