"""Storage: local files and URLs, read by byte ranges, many at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pipeline.checks import byte_count, whole
from pipeline.errors import SourceError, StorageError
from pipeline.sources.storage.atomic import written_whole
from pipeline.sources.storage.cache import BLOCK, Cache
from pipeline.sources.storage.local import check_same, pread, stat_of
from pipeline.sources.storage.location import Range, Stat, has_magic, is_url

if TYPE_CHECKING:
    from pipeline.sources.storage.remote import Remote

__all__ = ["Range", "Stat", "Storage", "is_url"]

T = TypeVar("T")
_PART = 64 << 20  # bytes of a file that are fetched into memory at once


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How files are reached; every source takes one as `storage=`. Plain data, so it pickles.

    Many ranges are requested concurrently, near ones in one request. Transient failures (no
    connection, 429, 5xx, a truncated body) are retried after growing, random pauses until the
    deadline. A missing object (404) or missing permission (401, 403) is final. The length of each
    response is checked, and the object's identity (its generation or etag) where a range carries a
    tag.

    Args:
        options: for the filesystem of a URL, as `fsspec.filesystem(protocol, **options)`, or for
            `obstore.store.from_url(bucket, **options)`. obstore also takes endpoint_url, token,
            anon, key and secret, as gcsfs and s3fs understand them.
        deadline: seconds for one request with all its retries; an upload gets one more for each
            MiB.
        cache: a folder for what is read from URLs, shared by any number of processes; "" for none.
            By default the environment variable LOCKSTEP_CACHE names it, if set.
        cache_size: its approximate limit, bytes or "20GiB"; the least recently used is evicted
            first.
        cache_what: "ranges" keeps the blocks of 256 KiB that are read, "shards" whole files.
        engine: "obstore" takes less time a request and serves gs, s3, az and http; "fsspec" knows
            many more protocols. "auto" is obstore where it is installed and serves the URL with
            these options, else fsspec.
        gap: unwanted bytes between two ranges up to which they are fetched in one request.
        largest: bytes of one request at most; larger ranges are split.
        flight: requests at once, in each process.

    Raises:
        SourceError: an argument is invalid.

    >>> storage = Storage(deadline=5, cache_size="1GiB")
    >>> storage.write("memory://doc/a", b"to be or not")
    >>> storage.read([Range("memory://doc/a", 3, 5), Range("memory://doc/a", 0, 2)])
    [b'be', b'to']
    >>> storage.stat("memory://doc/a").size, [s.path for s in storage.glob("memory://doc/*")]
    (12, ['memory://doc/a'])
    """

    options: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, hash=False)
    deadline: float = 60.0
    cache: str | os.PathLike[str] | None = None
    cache_size: int | str = "20GiB"
    cache_what: Literal["ranges", "shards"] = "ranges"
    engine: Literal["auto", "fsspec", "obstore"] = "auto"
    gap: int | str = "64KiB"
    largest: int | str = "8MiB"
    flight: int = 64

    def __post_init__(self) -> None:
        seconds: Any = self.deadline
        if not isinstance(seconds, int | float) or not 0 < seconds < 1e6:
            raise SourceError(f"deadline={seconds!r}: give seconds, more than 0")
        if self.cache:  # one place for all processes, after a chdir too
            folder = os.path.abspath(os.path.expanduser(os.fsdecode(self.cache)))
            object.__setattr__(self, "cache", folder)
        for name, known in (("cache_what", ("ranges", "shards")), ("engine", _ENGINES)):
            if getattr(self, name) not in known:
                raise SourceError(f"{name}={getattr(self, name)!r}: choose among {known}")
        byte_count("cache_size", self.cache_size, 1, SourceError)
        byte_count("gap", self.gap, 0, SourceError)
        byte_count("largest", self.largest, 1, SourceError)
        whole("flight", self.flight, 1, SourceError)

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    # ---- listing

    def stat(self, path: str) -> Stat:
        """Size and tag of one file.

        Raises:
            FileNotFoundError: it does not exist.
            StorageError: the store cannot be reached; an OSError.
        """
        return self.stats([path])[0]

    def stats(self, paths: Sequence[str]) -> list[Stat]:
        """Size and tag of each file, requested concurrently. Raises what `stat` raises."""
        urls = [path for path in paths if is_url(path)]
        known = dict(zip(urls, self._remote.stats(urls), strict=True)) if urls else {}
        return [known[p] if p in known else stat_of(p, os.stat(p)) for p in paths]

    def glob(self, pattern: str) -> list[Stat]:
        """The files that a URL pattern with * ? [ ] or ** matches, sorted; takes one listing.

        Raises:
            StorageError: it cannot be listed; an OSError.
        """
        found = self._remote.list(pattern) if has_magic(pattern) else []
        return found or self._literally(pattern)

    def _literally(self, pattern: str) -> list[Stat]:
        try:
            return [self.stat(pattern)]  # a name may contain brackets
        except FileNotFoundError:
            return []

    # ---- reading and writing

    def read(self, ranges: Sequence[Range]) -> list[bytes]:
        """The bytes of many ranges of any files, in the order given, requested concurrently.

        A range made by `Stat.range` is read only if the file is unchanged, and is cached.

        Raises:
            SourceError: the file was replaced since its `Stat` was taken.
            OSError: a range cannot be read, or extends beyond the end of its file.
        """
        found = [b""] * len(ranges)
        for read, which in self._ways(ranges):
            wanted = [ranges[i] for i in which]
            for i, data in zip(which, read(wanted) if wanted else [], strict=True):
                found[i] = data
        return found

    def _ways(
        self, ranges: Sequence[Range]
    ) -> Iterator[tuple[Callable[[list[Range]], list[bytes]], list[int]]]:
        near: list[int] = []
        far: list[int] = []
        kept: list[int] = []
        for i, span in enumerate(ranges):
            if span.size and not 0 <= span.start <= span.stop <= span.size:
                raise _outside(span)
            if span.start == span.stop:
                continue
            if not is_url(span.path):
                near.append(i)
            else:
                (kept if span.tag and span.size and self._cached else far).append(i)
        yield _read_local, near
        yield self._remote.read if far else _read_local, far
        yield self._read_shards if self.cache_what == "shards" else self._read_blocks, kept

    def _read_shards(self, ranges: list[Range]) -> list[bytes]:
        stats = {span.path: Stat(span.path, span.size, span.tag) for span in ranges}
        copies = {path: self.local(stat) for path, stat in stats.items()}
        return _read_local([span._replace(path=copies[span.path], size=0) for span in ranges])

    def _read_blocks(self, ranges: list[Range]) -> list[bytes]:
        cache = self._cache
        assert cache is not None
        wanted = {
            (Stat(span.path, span.size, span.tag), number)
            for span in ranges
            for number in range(span.start // BLOCK, -(-span.stop // BLOCK))
        }
        found = {key: cache.block(*key) for key in wanted}
        absent = [key for key, data in found.items() if data is None]
        spans = [s.range(n * BLOCK, min((n + 1) * BLOCK, s.size)) for s, n in absent]
        for key, data in zip(absent, self._remote.read(spans) if spans else [], strict=True):
            cache.keep_block(*key, data)
            found[key] = data
        return [_from_blocks(found, span) for span in ranges]

    def local(self, stat: Stat) -> str:
        """The path of a whole local file: the file itself, or a copy in the cache.

        A copy is protected from eviction while it is among the last 64 that this process asked for,
        so open it at once.

        Raises:
            StorageError: there is no cache, it has no room, or the file cannot be read.
            SourceError: the file was replaced since its `Stat` was taken.
        """
        if not is_url(stat.path):
            return stat.path
        if self._cache is None:
            raise StorageError(
                f"{stat.path} is needed as a local file, and there is no cache to keep a copy. "
                "Give Storage(cache='a folder'), or set LOCKSTEP_CACHE."
            )
        # without a tag nobody can tell whether another process's copy is of the same file
        known = stat if stat.tag else stat._replace(tag=f"process {os.getpid()} {_BORN}")
        return self._cache.shard(known, lambda: self._parts(stat))

    def _parts(self, stat: Stat) -> Iterator[bytes]:
        for start in range(0, stat.size, _PART):
            yield from self._remote.read([stat.range(start, min(start + _PART, stat.size))])

    def contents(self, path: str) -> bytes:
        """The contents of a file, at most its first 64 MiB, in one request. Nothing is cached.

        Raises:
            FileNotFoundError: it does not exist.
            OSError: it cannot be read.
        """
        if is_url(path):
            return self._remote.contents(path, _PART)
        with open(path, "rb") as f:
            return f.read(_PART)

    def write(self, path: str, data: bytes) -> None:
        """Write a whole small file, such as a manifest.

        Raises:
            OSError: it cannot be written.
        """
        if is_url(path):
            self._remote.write(path, data)
            return
        with written_whole(path) as f:
            f.write(data)

    def upload(self, path: str, url: str) -> None:
        """Copy a local file of any size to a URL.

        Raises:
            StorageError: it cannot be written; an OSError.
        """
        self._remote.upload(url, path)

    def remove(self, pattern: str) -> None:
        """Remove the files that a URL or a pattern matches. It is no error if there are none.

        Raises:
            StorageError: one cannot be removed; an OSError.
        """
        self._remote.remove([stat.path for stat in self.glob(pattern)])

    # ---- small values that are kept between runs

    def note(self, key: str) -> bytes | None:
        """The value stored under a key in the cache, or None."""
        return self._cache.note(key) if self._cache else None

    def keep_note(self, key: str, data: bytes) -> None:
        """Store a small value under a key, if there is a cache."""
        if self._cache:
            self._cache.keep_note(key, data)

    # ---- connections and caches of this process

    @property
    def _remote(self) -> Remote:
        return self._of_this_process("remote", self._new_remote)

    def _new_remote(self) -> Remote:
        from pipeline.sources.storage.remote import (
            Remote,  # it imports asyncio, which local files do not need
        )

        return Remote(
            self.engine,
            self.options,
            deadline=self.deadline,
            gap=byte_count("gap", self.gap),
            largest=byte_count("largest", self.largest),
            flight=self.flight,
        )

    @property
    def _cached(self) -> str:
        folder = os.environ.get("LOCKSTEP_CACHE") if self.cache is None else self.cache
        return os.fspath(folder or "")

    @property
    def _cache(self) -> Cache | None:
        folder = self._cached
        if not folder:
            return None
        size = byte_count("cache_size", self.cache_size)
        return self._of_this_process(f"cache {folder}", lambda: Cache(folder, size))

    def _of_this_process(self, name: str, make: Callable[[], T]) -> T:
        # keyed by process: connections, locks and threads do not survive a fork
        key = f"{name} of {os.getpid()}"
        if key not in self.__dict__:
            self.__dict__.setdefault(key, make())
        return self.__dict__[key]


_ENGINES = ("auto", "fsspec", "obstore")
_BORN = os.urandom(8).hex()  # tells this process from a later one with the same process id


def _read_local(ranges: list[Range]) -> list[bytes]:
    found: list[bytes] = []
    for path, group in groupby(ranges, key=lambda span: span.path):
        with open(path, "rb") as f:
            now = stat_of(path, os.fstat(f.fileno()))
            for span in group:
                if span.size:  # a range of a file that was looked up
                    check_same(Stat(path, span.size, span.tag), now)
                data = pread(f.fileno(), span.start, span.stop)
                if len(data) != span.stop - span.start:
                    raise _outside(span._replace(size=os.fstat(f.fileno()).st_size))
                found.append(data)
    return found


def _from_blocks(found: Mapping[tuple[Stat, int], bytes | None], span: Range) -> bytes:
    stat = Stat(span.path, span.size, span.tag)
    first, end = span.start // BLOCK, -(-span.stop // BLOCK)
    joined = b"".join(found[stat, number] or b"" for number in range(first, end))
    return joined[span.start - first * BLOCK : span.stop - first * BLOCK]


def _outside(span: Range) -> OSError:
    return OSError(
        f"{span.path} has {span.size} bytes: there are no bytes {span.start} to {span.stop}. "
        "Was it cut since it was written?"
    )
