"""The files of a source: their record counts, and their sizes and tags when they were counted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import SourceError
from pipeline.sources.complaints import changed, unreadable
from pipeline.sources.indices import inside
from pipeline.sources.storage import manifest
from pipeline.sources.storage.at_once import at_once
from pipeline.sources.storage.local import check_same, machine, stat_of
from pipeline.sources.storage.location import is_url, lasting
from pipeline.sources.storage.manifest import Facts
from pipeline.sources.storage.paths import ListedPath, Paths, expand, patterns, stats_of
from pipeline.sources.storage.storage import Stat, Storage

__all__ = ["Files", "ListedPath", "Paths", "changed", "expand", "unreadable"]

T = TypeVar("T")
_END = 64 << 10
_AT_ONCE = 32  # files looked at for a fingerprint at a time
_MOST = 1 << 62  # records


@dataclass(frozen=True)
class Files:
    """Several files as one range of records, end to end. Plain data, so it pickles small.

    Attributes:
        paths: in order.
        sizes: bytes of each file when its records were counted.
        counts: int64[len(paths)], records of each file.
        storage: how the files are read.
        tags: the tag (generation, etag, time of the last change) of each file when its records were
            counted; "" if unknown.
        kind: the format; the key under which a manifest keeps the counts. "" for no manifest.
        more: what `count` returned for each file besides the number of records.
        known_ends: digests of each file's first and last 64 KiB, "" where not yet computed.
        machine: on which they were counted. On another one, a copy of a local file may have been
            changed at another time.
    """

    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    counts: Int64s
    storage: Storage
    tags: tuple[str, ...]
    kind: str = ""
    more: tuple[Any, ...] = ()
    known_ends: tuple[str, ...] = ()
    machine: str = field(default_factory=machine)

    def __post_init__(self) -> None:
        for i in np.flatnonzero(self.counts > 1 << 48)[:1].tolist():
            raise unreadable(self.paths[i], f"it states {self.counts[i]} records, more than 2**48")

    @classmethod
    def counted(
        cls,
        paths: Paths,
        count: Callable[[Stat], int | tuple[int, Any]],
        storage: Storage | None = None,
        *,
        kind: str = "",
        empty: bool = False,
        sane: Callable[[Facts], bool] = lambda _: True,
    ) -> Files:
        """Expand paths, and ask `count` for the records of each file.

        Args:
            paths: of files.
            count: a file's records; or a pair of these and what else to keep of it in `more`,
                small and of JSON's types. Remote files are counted in threads, in any order.
            storage: how files are reached.
            kind: the format, with all that `count` depends on besides the file. With it, what a
                manifest knows is not counted again.
            empty: whether a file of 0 bytes is a valid file without records.
            sane: whether what a manifest says of a file can be; if not, it is counted.
        """

        def one(stat: Stat) -> Facts:
            found = count(stat)
            return Facts(*found) if isinstance(found, tuple) else Facts(int(found))

        def all_of(files: Sequence[Stat]) -> list[Facts]:
            return at_once(one, files, far=any(is_url(stat.path) for stat in files))

        return cls.counted_together(paths, all_of, storage, kind=kind, empty=empty, sane=sane)

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
            paths, storage, kind, empty, sane: as of `counted`.
            count: the facts of each of some files, in order.
        """
        storage = storage or Storage()
        paths = paths if isinstance(paths, str | os.PathLike) else list(paths)
        globs = patterns(paths)
        found = expand(paths, storage, empty=empty)
        noted = manifest.known(kind, found, storage, globs) if kind else [None] * len(found)
        known = [facts if facts is not None and sane(facts) else None for facts in noted]
        absent = [stat for stat, facts in zip(found, known, strict=True) if facts is None]
        new = iter(count(absent))
        facts = [f if f is not None else next(new) for f in known]
        if kind and absent:
            manifest.keep(kind, found, facts, storage)
        files, sizes, tags = zip(*found, strict=True)
        counts, more, ends = zip(*facts, strict=True)
        if sum(counts) >= _MOST:
            raise SourceError(f"{files[0]} and its like hold {sum(counts)} records: no order does.")
        return cls(files, sizes, np.array(counts, np.int64), storage, tags, kind, more, ends)

    @cached_property
    def bounds(self) -> Int64s:
        """int64[len(paths) + 1]: the first record of each file, and the end."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def __getstate__(self) -> dict[str, object]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if state.get("machine") != machine():
            both = zip(self.paths, self.tags, strict=True)
            self.__dict__["tags"] = tuple(tag if is_url(path) else "" for path, tag in both)

    def where(self, indices: Int64s) -> list[tuple[str, int]]:
        """Each record's file, and its index there."""
        wanted = inside(indices, len(self))
        file = np.searchsorted(self.bounds, wanted, side="right") - 1
        local = wanted - self.bounds[file]
        return [(self.paths[f], i) for f, i in zip(file.tolist(), local.tolist(), strict=True)]

    def split(self, ascending: Int64s) -> Iterator[tuple[int, Int64s]]:
        """(file, indices in that file) for each file that ascending indices touch, once each."""
        if len(self.paths) == 1:
            if len(ascending):
                yield 0, ascending
            return
        cuts = np.searchsorted(ascending, self.bounds)
        for file in np.flatnonzero(np.diff(cuts)).tolist():
            yield file, ascending[cuts[file] : cuts[file + 1]] - self.bounds[file]

    def check_unchanged(self, file: int) -> None:
        """Raise SourceError if a file was replaced, cut or removed since it was counted."""
        path = self.paths[file]
        try:
            if not is_url(path):
                self.check_local(file, os.stat(path))
                return
        except OSError:
            pass  # what follows says why
        check_same(self.stat(file), stats_of([path], self.storage)[0])

    def check_opening(self, file: int) -> None:
        """As `check_unchanged`, without a request where those for the file's bytes will tell.

        These carry the file's tag, so that asking for it first would only cost a round trip.
        """
        if not (self.tags[file] and is_url(self.paths[file])):
            self.check_unchanged(file)

    def check_local(self, file: int, found: os.stat_result) -> None:
        """Raise SourceError unless a local file is as it was when it was counted."""
        tag = self.tags[file]
        if found.st_size != self.sizes[file] or (tag and tag != str(found.st_mtime_ns)):
            check_same(self.stat(file), stat_of(self.paths[file], found))

    def stat(self, file: int) -> Stat:
        """A file as it was when its records were counted."""
        return Stat(self.paths[file], self.sizes[file], self.tags[file])

    def fingerprint(self, kind: str, *more: str) -> str:
        """32 hex digits from each file's base name, size, count and ends; directories do not enter.

        Of the bytes only the first and last 64 KiB count: where formats keep their indexes.
        """
        digest = hashlib.blake2b(digest_size=16)
        names = (os.path.basename(lasting(path)) for path in self.paths)
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
