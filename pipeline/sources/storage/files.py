"""Which files a source has, and which of them holds a record."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import SourceError, StorageError
from pipeline.sources.complaints import changed, unreadable
from pipeline.sources.indices import inside
from pipeline.sources.storage import manifest
from pipeline.sources.storage.location import has_magic, is_url
from pipeline.sources.storage.manifest import Facts
from pipeline.sources.storage.storage import Stat, Storage

__all__ = ["Files", "Found", "Paths", "changed", "expand", "unreadable"]

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

T = TypeVar("T")

_END = 64 << 10
_NOTE = re.compile(r"\.\w+\.manifest\.json$")  # what a conversion leaves beside x.parquet
_SHARDS = re.compile(r"@(\d+)(?=[^/@]*$)")
_AT_ONCE = 32  # remote files counted, or looked at for a fingerprint, at a time


class Found(str):
    """A path that carries what a listing said of it, so that nobody asks the store again."""

    stat: Stat

    @classmethod
    def of(cls, stat: Stat) -> Found:
        """The path of a file just found."""
        path = cls(stat.path)
        path.stat = stat
        return path


def expand(
    paths: Paths, storage: Storage | None = None, *, empty: bool = False
) -> tuple[Stat, ...]:
    """The files that paths, URLs and globs name: globs sorted, explicit order kept.

    A glob of URLs costs one listing; single URLs are asked for together.

    Args:
        paths: `name@3.bagz` stands for `name-00000-of-00003.bagz` and its fellows.
        storage: how URLs are reached.
        empty: whether a file of 0 bytes is a valid file without records.

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
        named = [_plain(path) for path in given]
    except TypeError as e:
        raise SourceError(f"paths={paths!r}: give a path, a glob or a list of them") from e
    found = [
        stat for path in named for shard in _shards(path) for stat in _expand_one(shard, storage)
    ]
    if not found:
        raise SourceError(f"paths={paths!r} names no file. Give at least one path or glob.")
    unknown = [path for path in found if isinstance(path, str)]
    known = dict(zip(unknown, _stats(unknown, storage), strict=True))
    files = tuple(known[f] if isinstance(f, str) else f for f in found)
    for stat in files:
        if stat.size == 0 and not empty:
            raise SourceError(
                f"{stat.path} is empty (0 bytes). Rewrite it, or remove it from paths."
            )
    return files


def _shards(path: str) -> list[str]:
    found = None if isinstance(path, Found) else _SHARDS.search(path)
    if found is None or (not is_url(path) and os.path.exists(path)):
        return [path]
    n, head, tail = int(found[1]), path[: found.start()], path[found.end() :]
    return [f"{head}-{i:05d}-of-{n:05d}{tail}" for i in range(n)]


def _plain(path: str | os.PathLike[str]) -> str:
    name = path if isinstance(path, Found) else os.path.expanduser(os.fsdecode(path))
    return name.removeprefix("file://") if name.startswith("file:///") else name


def _expand_one(path: str, storage: Storage) -> Sequence[Stat | str]:
    """What a listing says of files; or their paths, where nothing was listed."""
    if isinstance(path, Found):
        return [path.stat]
    if is_url(path):
        return _expand_url(path, storage)
    if os.path.isdir(path):
        raise _is_folder(path)
    if os.path.exists(path):  # before globs: a name may hold brackets
        return [os.path.abspath(path)]  # so that a later chdir does not lose it
    if not glob.has_magic(path):
        raise SourceError(f"{path} does not exist. Correct the path, or remove it from paths.")
    found = sorted(f for f in glob.glob(path, recursive=True) if os.path.isfile(f))
    found = [f for f in found if not _NOTE.search(f)]
    if not found:
        raise SourceError(
            f"no file matches the pattern {path!r} (in {os.getcwd()}). Correct the pattern."
        )
    return [os.path.abspath(f) for f in found]


def _expand_url(url: str, storage: Storage) -> Sequence[Stat | str]:
    if url.endswith("/"):
        raise _is_folder(url)
    if not has_magic(url):
        return [url]
    try:
        found = [f for f in storage.glob(url) if not f.path.endswith(f"/{manifest.NAME}")]
        found = [f for f in found if not _NOTE.search(f.path)]
    except StorageError:
        raise
    except OSError as e:
        raise unreadable(url, e) from e
    if not found:
        raise SourceError(f"no file matches the pattern {url!r}. Correct the pattern.")
    return found


def _is_folder(path: str) -> SourceError:
    return SourceError(
        f"{path} is a directory. Name its files with a glob: {os.path.join(path, '*')!r}."
    )


@dataclass(frozen=True)
class Files:
    """Files end to end as one range of records; plain data, so it pickles small.

    Attributes:
        paths: in order.
        sizes: bytes of each when its records were counted.
        counts: int64[len(paths)], records of each.
        storage: how they are reached.
        tags: what storage said of each one's contents when its records were counted.
        kind: the format, under which a manifest keeps what was found out; "" for none.
        more: what `count` found out about each besides.
    """

    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    counts: Int64s
    storage: Storage
    tags: tuple[str, ...]
    kind: str = ""
    more: tuple[Any, ...] = ()
    known_ends: tuple[str, ...] = ()

    @classmethod
    def counted(
        cls,
        paths: Paths,
        count: Callable[[Stat], int | tuple[int, Any]],
        storage: Storage | None = None,
        *,
        kind: str = "",
        empty: bool = False,
    ) -> Files:
        """Expand paths, and ask `count` for the records of each file.

        Args:
            paths: of files.
            count: a file's records; or a pair of these and what else to keep of it in `more`,
                small and of JSON's types.
            storage: how files are reached.
            kind: the format, with all that `count` depends on besides the file. With it, what a
                manifest knows is not counted again, and remote files are counted in threads, in
                any order: `count` must be a pure function.
            empty: whether a file of 0 bytes is a valid file without records.
        """

        def all_of(files: Sequence[Stat]) -> list[Facts]:
            return _counted(count, files, threads=bool(kind))

        return cls.counted_together(paths, all_of, storage, kind=kind, empty=empty)

    @classmethod
    def counted_together(
        cls,
        paths: Paths,
        count: Callable[[Sequence[Stat]], Iterable[Facts]],
        storage: Storage | None = None,
        *,
        kind: str = "",
        empty: bool = False,
        sane: Callable[[Facts], bool] = lambda _: True,
    ) -> Files:
        """As `counted`, with a function that counts many files at once.

        Args:
            paths, storage, kind, empty: as of `counted`.
            count: the facts of each of some files, in order.
            sane: whether what a manifest says of a file can be; if not, it is counted.
        """
        storage = storage or Storage()
        found = expand(paths, storage, empty=empty)
        noted = manifest.known(kind, found, storage) if kind else [None] * len(found)
        known = [facts if facts is not None and sane(facts) else None for facts in noted]
        absent = [stat for stat, facts in zip(found, known, strict=True) if facts is None]
        new = iter(count(absent))
        facts = [f if f is not None else next(new) for f in known]
        if kind and absent:
            manifest.keep(kind, found, facts, storage)
        files, sizes, tags = zip(*found, strict=True)
        counts, more, ends = zip(*facts, strict=True)
        return cls(files, sizes, np.array(counts, np.int64), storage, tags, kind, more, ends)

    @cached_property
    def bounds(self) -> Int64s:
        """int64[len(paths) + 1]: the first record of each file, and the end."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def __getstate__(self) -> dict[str, object]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

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
        now = _stats([self.paths[file]], self.storage)[0]
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
        facts = zip(names, self.sizes, self.counts.tolist(), self._ends, strict=True)
        for part in (kind, *more, *(f"{size} {n} {end} {name}" for name, size, n, end in facts)):
            text = part.encode("utf-8", "surrogateescape")
            digest.update(b"%d:" % len(text) + text)
        return digest.hexdigest()

    @cached_property
    def _ends(self) -> list[str]:
        """Digests of each file's first and last 64 KiB, from the manifest or from the files."""
        ends = list(self.known_ends) or [""] * len(self.paths)
        absent = [i for i, end in enumerate(ends) if not end]
        for start in range(0, len(absent), _AT_ONCE):
            some = absent[start : start + _AT_ONCE]
            for i, end in zip(some, self._read_ends(some), strict=True):
                ends[i] = end
        if self.kind and absent:
            self._keep(ends, manifest.keep)
        return ends

    def _read_ends(self, files: Sequence[int]) -> list[str]:
        # a cache would read whole blocks for these, and keep them for nobody
        some = [i for i in files if self.sizes[i]]
        spans = [
            self.stat(i).range(start, stop)._replace(size=0)
            for i in some
            for start, stop in (
                (0, min(_END, self.sizes[i])),
                (max(0, self.sizes[i] - _END), self.sizes[i]),
            )
        ]
        try:
            found = iter(self.storage.read(spans))
        except OSError as e:
            raise unreadable(e.filename or self.paths[files[0]], e) from e
        ends = [next(found) + next(found) if self.sizes[i] else b"" for i in files]
        return [hashlib.blake2b(both, digest_size=16).hexdigest() for both in ends]

    def write_manifest(self) -> list[str]:
        """Write what is known of the files, ends included, beside them: one file a folder.

        Returns:
            The paths written.

        Raises:
            SourceError: this format keeps none.
            OSError: one cannot be written.
        """
        if not self.kind:
            raise SourceError(f"{self.paths[0]}: its format counts fast and keeps no manifest.")
        return self._keep(self._ends, manifest.keep_beside)

    def _keep(self, ends: Sequence[str], keep: Callable[..., T]) -> T:
        rows = zip(self.counts.tolist(), self.more, ends, strict=True)
        stats = [self.stat(i) for i in range(len(self.paths))]
        return keep(self.kind, stats, [Facts(*row) for row in rows], self.storage)


def _counted(
    count: Callable[[Stat], int | tuple[int, Any]], files: Sequence[Stat], *, threads: bool
) -> list[Facts]:
    def one(stat: Stat) -> Facts:
        found = count(stat)
        return Facts(*found) if isinstance(found, tuple) else Facts(int(found))

    if not threads or not any(is_url(stat.path) for stat in files):
        return [one(stat) for stat in files]
    with ThreadPoolExecutor(min(_AT_ONCE, len(files)), "lockstep-count") as pool:
        try:
            return list(pool.map(one, files))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _stats(paths: Sequence[str], storage: Storage) -> list[Stat]:
    try:
        return storage.stats(paths)
    except StorageError:
        raise
    except OSError as e:
        raise unreadable(e.filename or paths[0], e) from e
