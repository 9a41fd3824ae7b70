"""Which files a source has, and which of them holds a record."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import SourceError
from pipeline.sources.indices import inside
from pipeline.sources.storage import Range, Stat, Storage, is_url

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_END = 64 << 10


def expand(paths: Paths, storage: Storage | None = None) -> tuple[Stat, ...]:
    """The files that paths, URLs and globs name: globs sorted, explicit order kept.

    Raises:
        SourceError: nothing matches, a directory, or a missing or empty file.
    """
    storage = storage or Storage()
    given = (
        list(paths)
        if isinstance(paths, Iterable) and not isinstance(paths, str | bytes)
        else [paths]
    )
    try:
        named = [os.path.expanduser(os.fsdecode(path)) for path in given]
    except TypeError as e:
        raise SourceError(f"paths={paths!r}: give a path, a glob or a list of them") from e
    # absolute, so that a later chdir does not lose them
    files = tuple(
        file if is_url(file) else os.path.abspath(file)
        for path in named
        for file in _expand_one(path)
    )
    if not files:
        raise SourceError(f"paths={paths!r} names no file. Give at least one path or glob.")
    return tuple(_stat(file, storage) for file in files)


def _expand_one(path: str) -> list[str]:
    if is_url(path):
        return [path]
    if os.path.isdir(path):
        raise SourceError(
            f"{path} is a directory. Name its files with a glob: {os.path.join(path, '*')!r}."
        )
    if os.path.exists(path):  # before globs: a name may hold brackets
        return [path]
    if not glob.has_magic(path):
        raise SourceError(f"{path} does not exist. Correct the path, or remove it from paths.")
    found = sorted(f for f in glob.glob(path, recursive=True) if os.path.isfile(f))
    if not found:
        raise SourceError(
            f"no file matches the pattern {path!r} (in {os.getcwd()}). Correct the pattern."
        )
    return found


@dataclass(frozen=True)
class Files:
    """Files end to end as one range of records; plain data, so it pickles small.

    Attributes:
        paths: in order.
        sizes: bytes of each when its records were counted.
        counts: int64[len(paths)], records of each.
        storage: how they are reached.
        tags: what storage said of each one's contents when its records were counted.
    """

    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    counts: Int64s
    storage: Storage
    tags: tuple[str, ...]

    @classmethod
    def counted(
        cls, paths: Paths, count: Callable[[Stat], int], storage: Storage | None = None
    ) -> Files:
        """Expand paths, and ask `count` for the records of each file."""
        storage = storage or Storage()
        found = expand(paths, storage)
        counts = np.array([count(stat) for stat in found], np.int64)
        files, sizes, tags = zip(*found, strict=True)
        return cls(files, sizes, counts, storage, tags)

    @cached_property
    def bounds(self) -> Int64s:
        """int64[len(paths) + 1]: the first record of each file, and the end."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def __getstate__(self) -> dict[str, object]:
        names = ("paths", "sizes", "counts", "storage", "tags")
        return {name: getattr(self, name) for name in names}

    def where(self, indices: Int64s) -> list[tuple[str, int]]:
        """Each record's file, and its index there."""
        wanted = inside(indices, len(self))
        file = np.searchsorted(self.bounds, wanted, side="right") - 1
        local = wanted - self.bounds[file]
        return [(self.paths[f], i) for f, i in zip(file.tolist(), local.tolist(), strict=True)]

    def split(self, ascending: Int64s) -> Iterator[tuple[int, Int64s]]:
        """(file, indices in that file) for each file that ascending indices touch, once each."""
        cuts = np.searchsorted(ascending, self.bounds)
        for file in np.flatnonzero(np.diff(cuts)).tolist():
            yield file, ascending[cuts[file] : cuts[file + 1]] - self.bounds[file]

    def check_unchanged(self, file: int) -> None:
        """Raise SourceError if a file was replaced, cut or removed since it was counted."""
        now = _stat(self.paths[file], self.storage)
        was = self.stat(file)
        if now.size != was.size:
            raise changed(was.path, f"{was.size} bytes", f"{now.size}")
        if now != was:
            raise changed(was.path, f"tag {was.tag}", now.tag)

    def stat(self, file: int) -> Stat:
        """A file as it was when its records were counted."""
        return Stat(self.paths[file], self.sizes[file], self.tags[file])

    def fingerprint(self, kind: str, *more: str) -> str:
        """32 hex digits from each file's base name, size, count and ends; directories do not enter.

        Of the bytes only the first and last 64 KiB count: where formats keep their indexes.
        """
        digest = hashlib.blake2b(digest_size=16)
        names = (os.path.basename(path) for path in self.paths)
        facts = zip(names, self.sizes, self.counts.tolist(), _ends(self), strict=True)
        for part in (kind, *more, *(f"{size} {n} {end} {name}" for name, size, n, end in facts)):
            text = part.encode("utf-8", "surrogateescape")
            digest.update(b"%d:" % len(text) + text)
        return digest.hexdigest()


def _ends(files: Files) -> list[str]:
    spans = [
        Range(path, start, stop)
        for path, size in zip(files.paths, files.sizes, strict=True)
        for start, stop in ((0, min(_END, size)), (max(0, size - _END), size))
    ]
    try:
        found = files.storage.read(spans)
    except OSError as e:
        raise unreadable(e.filename or files.paths[0], e) from e
    pairs = zip(found[::2], found[1::2], strict=True)
    return [hashlib.blake2b(head + tail, digest_size=16).hexdigest() for head, tail in pairs]


def _stat(path: str, storage: Storage) -> Stat:
    try:
        stat = storage.stat(path)
    except OSError as e:
        raise unreadable(path, e) from e
    if stat.size == 0:
        raise SourceError(f"{path} is empty (0 bytes). Rewrite it, or remove it from paths.")
    return stat


def unreadable(path: str, reason: object) -> SourceError:
    """The error for a file that cannot be opened or is not what its source expects."""
    text = " ".join(str(reason).split()) or "no reason given"
    return SourceError(f"cannot read {path}: {text}. Rewrite it, or remove it from paths.")


def changed(path: str, was: str, now: str) -> SourceError:
    """The error for a file that is not the one whose records were counted."""
    return SourceError(
        f"{path} has changed since its records were counted: it had {was}, now {now}. "
        "Restore the file, or build the source anew."
    )
