"""The cache on local disk: blocks and whole files of URLs, keyed by URL, tag and size.

Any process may be killed at any point. An entry gets its name by a rename once it is whole. Locks
are flocks, which end with their process, so a temporary file without a lock was left by a killed
process and is removed. Nothing is synced to disk: after a power failure, truncated entries are
detected by size and checksum at their next use, and fetched again.

Other users and programs may write to the folder too. An entry that is not a regular file, or that
cannot be read, counts as missing, and one warning is logged.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat as modes
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pipeline.errors import StorageError
from pipeline.sources.complaints import parsed_json, warn_once
from pipeline.sources.storage.local import LocalFile, open_regular
from pipeline.sources.storage.location import Stat
from pipeline.sources.storage.lru import LRU

BLOCK = 256 << 10  # bytes of a block, the unit in which ranges are cached
INDEX = "index"  # a folder beside v1 with the indexes of local files, see side_index.py
_STRIPES = 1024  # number of lock files; two shards with the same lock wait for each other
_SUM = ".sum"  # suffix of the file beside a shard that holds its size and checksum
_FETCHES = 4
_MINUTE = 60.0
_ROOMS = ("blocks", "shards", "notes")
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)

PINS = LRU[str, LocalFile](64)
"""Open local copies; their shared locks keep the last 64 that this process used from eviction."""


class Cache:
    """A folder of at most about `limit` bytes, shared by any number of processes and threads.

    The least recently used entries are evicted first. The limit can be exceeded by entries that are
    being written or are in use, and by a sixteenth of it for each writing process.

    Args:
        folder: created if it is missing.
        limit: bytes.

    Raises:
        StorageError: the folder cannot be created. A read-only folder is used as it is.
    """

    def __init__(self, folder: str, limit: int) -> None:
        self._root = Path(folder).expanduser().absolute() / "v1"
        self._limit = limit
        self._lock = threading.Lock()
        # by path: identity (inode, size, mtime) of entries whose checksum was compared
        self._trusted = LRU[str, tuple[int, int, int]](100_000)
        self._unseen: int | None = None  # bytes written since the last eviction
        try:
            for room in (*_ROOMS, "tmp", "locks"):
                (self._root / room).mkdir(parents=True, exist_ok=True)
        except OSError as e:
            if e.errno not in _NO_RIGHT:
                raise StorageError(
                    f"cache {folder} cannot be used: {e}. Choose another folder, or cache=''."
                ) from e
            self._complain(e)
        self._sweep()

    # ---- blocks, and other small things

    def block(self, stat: Stat, number: int) -> bytes | None:
        """Block `number` of a file, or None if it is not cached or damaged."""
        return self._get(self._block_path(stat, number))

    def keep_block(self, stat: Stat, number: int, data: bytes) -> None:
        """Store a block. If the disk is full, a warning is logged and the block is not kept."""
        self._put(self._block_path(stat, number), data)

    def note(self, key: str) -> bytes | None:
        """A small value stored under a key, or None if it is missing or damaged."""
        return self._get(self._root / "notes" / _hash(key))

    def keep_note(self, key: str, data: bytes) -> None:
        """Store a small value under a key; replaces an older one."""
        self._put(self._root / "notes" / _hash(key), data)

    def _block_path(self, stat: Stat, number: int) -> Path:
        key = _hash(f"{stat.path}\n{stat.tag}\n{stat.size}")
        return self._root / "blocks" / key[:2] / f"{key[2:]}-{number}"

    def _get(self, path: Path) -> bytes | None:
        file = self._entry(path)
        if file is None:
            return None
        data = file.read(0, file.size)
        body = data[4:]
        if not self._is_sound(file, lambda: data[:4] == zlib.crc32(body).to_bytes(4, "little")):
            with suppress(OSError):
                path.unlink()
            return None
        file.touch()
        return body

    def _put(self, path: Path, data: bytes) -> None:
        try:
            with self._temporary() as f:
                f.write(zlib.crc32(data).to_bytes(4, "little"))
                f.write(data)
                f.flush()
                self._publish(f, path)
        except OSError as e:
            self._complain(e)
            return
        self.count(len(data))

    # ---- whole files

    def shard(self, stat: Stat, fetch: Callable[[], Iterable[bytes]]) -> str:
        """The path of a local copy of a whole file. One process fetches it, others wait.

        The copy is not evicted while it is among the last 64 that this process asked for.

        Args:
            stat: the file.
            fetch: yields its bytes in order; called if there is no sound copy.

        Raises:
            StorageError: the copy cannot be written or does not stay in the cache.
        """
        key = _hash(f"{stat.path}\n{stat.tag}\n{stat.size}")
        name = os.path.basename(stat.path.split("?")[0])[-100:]
        path = self._root / "shards" / key[:2] / f"{key[2:]}-{name}"
        with self._locked(f"{int(key, 16) % _STRIPES:03x}"):
            if self._pin(path, stat):
                return str(path)
            for _ in range(_FETCHES):  # another process may evict the copy before it is pinned
                self._fetch(path, stat, fetch)
                if self._pin(path, stat):
                    self.count(stat.size)
                    return str(path)
        raise StorageError(
            f"{stat.path} does not stay in the cache {self._root}. Raise Storage(cache_size=), or "
            "choose another folder, on a disk that keeps what is written."
        )

    def _fetch(self, path: Path, stat: Stat, fetch: Callable[[], Iterable[bytes]]) -> None:
        try:
            with self._temporary() as f:
                crc = 0
                for part in fetch():
                    crc = zlib.crc32(part, crc)
                    f.write(part)
                f.flush()
                with self._temporary() as note:
                    note.write(json.dumps({"size": stat.size, "crc32": crc}).encode())
                    note.flush()
                    self._publish(note, _sum_of(path))
                self._publish(f, path)
        except StorageError:
            raise
        except OSError as e:
            raise StorageError(
                f"{stat.path} cannot be copied to the cache {self._root}: {e}. "
                "Free some space, or choose another folder."
            ) from e

    def _pin(self, path: Path, stat: Stat) -> bool:
        """Whether a sound copy exists. If so, a shared lock now protects it from eviction."""
        file = self._entry(path)
        if file is None:
            return False
        fcntl.flock(file.fd, fcntl.LOCK_SH)
        if not os.fstat(file.fd).st_nlink:  # evicted while we waited for the lock
            return False
        if not self._is_sound(file, lambda: self._matches(file, path, stat.size)):
            return False  # left there until it is replaced: another process may be opening it
        file.touch()
        PINS.put(str(path), file)
        return True

    def _matches(self, file: LocalFile, path: Path, size: int) -> bool:
        """Whether an open copy has the size and checksum noted in its .sum file."""
        note = self._entry(_sum_of(path))
        if note is None or file.size != size:
            return False
        try:
            noted = parsed_json(note.read(0, 1000), note.path, StorageError)
        except StorageError:
            return False
        crc = 0
        for start in range(0, size, 1 << 20):
            crc = zlib.crc32(file.read(start, min(start + (1 << 20), size)), crc)
        return noted == {"size": size, "crc32": crc}

    # ---- files

    def _entry(self, path: Path) -> LocalFile | None:
        try:
            return LocalFile(path)
        except FileNotFoundError:
            return None
        except OSError as e:  # no permission, a folder, a link, a FIFO: counts as a miss
            self._complain(e)
            return None

    def _complain(self, error: OSError) -> None:
        warn_once(
            f"the cache {self._root} keeps nothing new, or cannot read some entries: {error}. Give "
            "another folder, or its files to this user.",
            (str(self._root), error.errno),
        )

    def _is_sound(self, file: LocalFile, check: Callable[[], bool]) -> bool:
        """Whether an open entry passes `check`. A success is remembered until the file changes."""
        info = os.fstat(file.fd)
        identity = (info.st_ino, info.st_size, info.st_mtime_ns)
        if self._trusted.peek(file.path) == identity:
            return True
        if not info.st_size or not check():
            warn_once(f"cache: {file.path} is damaged and will be fetched anew")
            return False
        self._trusted.put(file.path, identity)
        return True

    @contextmanager
    def _temporary(self) -> Generator[IO[bytes]]:
        """A locked temporary file. No sweep removes it while this process lives."""
        while True:
            path = self._root / "tmp" / uuid.uuid4().hex
            f = open(path, "xb")  # noqa: SIM115
            fcntl.flock(f, fcntl.LOCK_EX)
            if os.fstat(f.fileno()).st_nlink:  # else it was swept before it was locked
                break
            f.close()
        try:
            yield f
        finally:
            path.unlink(missing_ok=True)  # before its lock goes; missing if it was published
            f.close()

    def _publish(self, f: IO[bytes], path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        os.replace(f.name, path)

    @contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Generator[bool]:
        """Hold a lock file's flock. In a read-only folder, go on without a lock.

        Args:
            name: of the lock file.
            wait: wait for another process that holds it.

        Yields:
            Whether the lock is held. In a read-only folder, `wait` instead: whoever insists on the
                lock goes on without it.
        """
        path = self._root / "locks" / name
        try:
            fd = open_regular(path, os.O_RDWR | os.O_CREAT)
        except OSError as e:
            self._complain(e)
            yield wait
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            held = False
        try:
            yield held
        finally:
            if held:  # explicitly, since a process forked meanwhile shares the lock
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    # ---- the limit

    def count(self, size: int) -> None:
        """Count bytes that were written, and evict entries if enough have been."""
        with self._lock:
            first = self._unseen is None
            self._unseen = size if self._unseen is None else self._unseen + size
            due = self._unseen > self._limit // 16
            if due:
                self._unseen = 0
        # short-lived processes write less than that, and evict too: once a minute together
        if due or (first and time.time() - self._measured() > _MINUTE):
            self._evict()

    def _measured(self) -> float:
        try:
            return os.lstat(self._root / "locks" / "evict").st_mtime
        except OSError:
            return 0.0

    def _sweep(self) -> None:
        """Remove the temporary files that killed processes left."""
        with suppress(OSError):
            for left in os.scandir(self._root / "tmp"):
                _remove_unlocked(left.path)

    def _evict(self) -> None:
        """If the limit is exceeded, remove the least recently used entries, down to 90 % of it."""
        with self._locked("evict", wait=False) as held:
            if not held:
                return  # another process is evicting
            with suppress(OSError):
                os.utime(self._root / "locks" / "evict", follow_symlinks=False)
            self._sweep()
            entries = sorted(self._entries())
            size = sum(entry[1] for entry in entries)
            for _, its, path in entries if size > self._limit else ():
                if size <= self._limit * 9 // 10:
                    break
                if _remove_unlocked(path):
                    size -= its
                    _sum_of(Path(path)).unlink(missing_ok=True)

    def _entries(self) -> Iterator[tuple[int, int, str]]:
        """(last use in ns, bytes, path) of each entry. A shard's .sum file is part of its shard."""
        for room in (*(self._root / room for room in _ROOMS), self._root.parent / INDEX):
            for folder, _, names in os.walk(room):
                for name in names:
                    path = os.path.join(folder, name)
                    if name.endswith(_SUM) and os.path.exists(path.removesuffix(_SUM)):
                        continue
                    with suppress(OSError):
                        info = os.lstat(path)
                        if modes.S_ISREG(info.st_mode):
                            yield info.st_atime_ns, info.st_size, path


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _sum_of(path: Path) -> Path:
    return path.with_name(path.name + _SUM)


def _remove_unlocked(path: str) -> bool:
    """Remove a file unless a process holds a lock on it; returns whether it was removed."""
    with suppress(OSError):
        file = LocalFile(path)
        fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(file.fd).st_ino:  # else it was replaced meanwhile
            os.unlink(path)
            return True
    return False
