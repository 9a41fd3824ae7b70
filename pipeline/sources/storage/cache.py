"""Which remote bytes lie on the local disk: whole files or blocks, found again by URL and tag.

Any process may be killed at any point. Bytes get their name by a rename, once they are whole; locks
are flocks, which end with their process; a temporary file whose lock is free was left by the dead,
and is removed. Nothing is synced to the disk: what a power failure cuts or empties is found by size
and checksum when it is first read again, and fetched anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import threading
import time
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pipeline.errors import StorageError
from pipeline.sources.storage.location import Stat

LOGGER = logging.getLogger("pipeline")
BLOCK = 256 << 10  # bytes of a file that are cached together
_STRIPES = 1024  # lock files; two shards that share one wait for each other
_PINS = 64  # local copies that stay while they are among the last that this process asked for
_TRUSTED = 100_000  # entries whose checksum this process need not compare again
_SUM = ".sum"  # beside a shard: its size and checksum
_FETCHES = 4
_MINUTE = 60.0
_ROOMS = ("blocks", "shards", "notes")


class Pins:
    """Open local copies, whose shared locks keep them: the last ones that this process used."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._held: OrderedDict[str, int] = OrderedDict()

    def add(self, path: str, fd: int) -> None:
        """Hold an open file in place of an older one of that path."""
        if self._pid != os.getpid():  # a forked child: its copy of the lock may be held for ever
            self._begin()
        with self._lock:
            dropped = [self._held.pop(path)] if path in self._held else []
            self._held[path] = fd
            if len(self._held) > _PINS:
                dropped.append(self._held.popitem(last=False)[1])
        for old in dropped:
            os.close(old)

    def release(self) -> None:
        """Let go of all."""
        with self._lock:
            while self._held:
                os.close(self._held.popitem()[1])


PINS = Pins()


class Cache:
    """A folder of at most about `limit` bytes, shared by any number of processes and threads.

    The least recently used entries are removed first. The limit may be passed by what is being
    written, by the copies in use, and by a sixteenth of it for each writing process.
    """

    def __init__(self, folder: str, limit: int) -> None:
        self._root = Path(folder).expanduser().absolute() / "v1"
        self._limit = limit
        self._lock = threading.Lock()
        self._trusted: OrderedDict[str, tuple[int, int, int]] = OrderedDict()
        self._unseen: int | None = None  # bytes written since the folder was last measured
        try:
            for room in (*_ROOMS, "tmp", "locks"):
                (self._root / room).mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise StorageError(
                f"cache {folder} cannot be used: {e}. Choose another folder, or cache=''."
            ) from e
        self._sweep()

    # ---- blocks, and other small things

    def block(self, stat: Stat, number: int) -> bytes | None:
        """Block `number` of a file, if it is here and sound."""
        return self._get(self._block_path(stat, number))

    def keep_block(self, stat: Stat, number: int, data: bytes) -> None:
        """Keep a block; a full disk only makes things slower, and is logged."""
        self._put(self._block_path(stat, number), data)

    def note(self, key: str) -> bytes | None:
        """A small thing kept under a key, if it is here and sound."""
        return self._get(self._root / "notes" / _hash(key))

    def keep_note(self, key: str, data: bytes) -> None:
        """Keep a small thing under a key, in place of what was there."""
        self._put(self._root / "notes" / _hash(key), data)

    def _block_path(self, stat: Stat, number: int) -> Path:
        key = _hash(f"{stat.path}\n{stat.tag}\n{stat.size}")
        return self._root / "blocks" / key[:2] / f"{key[2:]}-{number}"

    def _get(self, path: Path) -> bytes | None:
        try:
            with open(path, "rb") as f:
                data = f.read()
                if not self._is_sound(str(path), f, lambda: _opened(data) is not None):
                    path.unlink(missing_ok=True)
                    return None
                _touch(f)
        except FileNotFoundError:
            return None
        return _opened(data, check=False)

    def _put(self, path: Path, data: bytes) -> None:
        try:
            with self._temporary() as f:
                f.write(zlib.crc32(data).to_bytes(4, "little"))
                f.write(data)
                f.flush()
                self._publish(f, path)
        except OSError as e:
            LOGGER.warning("the cache %s keeps nothing new: %s", self._root, e)
            return
        self._count(len(data))

    # ---- whole files

    def shard(self, stat: Stat, fetch: Callable[[], Iterable[bytes]]) -> str:
        """A local copy of a whole file, which stays while it is in use; one process fetches it.

        Raises:
            StorageError: there is no room for it.
        """
        key = _hash(f"{stat.path}\n{stat.tag}\n{stat.size}")
        name = os.path.basename(stat.path.split("?")[0])[-100:]
        path = self._root / "shards" / key[:2] / f"{key[2:]}-{name}"
        with self._only_one(key):
            if self._pin(path, stat):
                return str(path)
            for _ in range(_FETCHES):  # another process may evict it before it is pinned
                self._fetch(path, stat, fetch)
                if self._pin(path, stat):
                    self._count(stat.size)
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
        """Whether a sound copy is here; a shared lock then keeps it from being evicted."""
        with suppress(FileNotFoundError), open(path, "rb") as f:
            fcntl.flock(f, fcntl.LOCK_SH)
            if not os.fstat(f.fileno()).st_nlink:  # evicted while we waited
                return False
            if self._is_sound(str(path), f, lambda: _matches(f, path, stat.size)):
                _touch(f)
                PINS.add(str(path), os.dup(f.fileno()))  # a duplicate holds the lock on
                return True
        return False  # a damaged copy stays until it is replaced: another may be opening it

    # ---- files

    def _is_sound(self, name: str, f: IO[bytes], check: Callable[[], bool]) -> bool:
        """Whether an open entry passed its check, now or before in this process."""
        info = os.fstat(f.fileno())
        identity = (info.st_ino, info.st_size, info.st_mtime_ns)
        if self._trusted.get(name) == identity:
            return True
        if not check():
            LOGGER.warning("cache: %s is damaged and will be fetched anew", name)
            return False
        with self._lock:
            self._trusted[name] = identity
            if len(self._trusted) > _TRUSTED:
                self._trusted.popitem(last=False)
        return True

    @contextmanager
    def _temporary(self) -> Generator[IO[bytes]]:
        """A file that no sweep removes while this process lives."""
        while True:
            path = self._root / "tmp" / uuid.uuid4().hex
            f = open(path, "xb")  # noqa: SIM115
            fcntl.flock(f, fcntl.LOCK_EX)
            if os.fstat(f.fileno()).st_nlink:  # else swept before it was locked
                break
            f.close()
        try:
            yield f
        finally:
            path.unlink(missing_ok=True)  # before its lock goes; it is gone if it was published
            f.close()

    def _publish(self, f: IO[bytes], path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        os.replace(f.name, path)

    @contextmanager
    def _only_one(self, key: str) -> Generator[None]:
        with open(self._root / "locks" / f"{int(key, 16) % _STRIPES:03x}", "wb") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            try:
                yield
            finally:  # said aloud: a process forked meanwhile shares the lock, and may live on
                fcntl.flock(f, fcntl.LOCK_UN)

    # ---- the limit

    def _count(self, size: int) -> None:
        with self._lock:
            first = self._unseen is None
            self._unseen = size if self._unseen is None else self._unseen + size
            due = self._unseen > self._limit // 16
            if due:
                self._unseen = 0
        # processes too short to write a sixteenth see to it as well, once a minute together
        if due or (first and time.time() - self._measured() > _MINUTE):
            self._evict()

    def _measured(self) -> float:
        try:
            return os.stat(self._root / "locks" / "evict").st_mtime
        except FileNotFoundError:
            return 0.0

    def _sweep(self) -> None:
        """Remove the temporary files of the dead."""
        for left in os.scandir(self._root / "tmp"):
            _remove_unlocked(left.path)

    def _evict(self) -> None:
        """Remove the least recently used until nine tenths of the limit hold."""
        with open(self._root / "locks" / "evict", "wb") as lock:  # which sets its time
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return  # another process is at it
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
        """(last used, bytes, path) of all; the sum of a shard goes with it."""
        for room in _ROOMS:
            for folder, _, names in os.walk(self._root / room):
                for name in names:
                    path = os.path.join(folder, name)
                    if name.endswith(_SUM) and os.path.exists(path.removesuffix(_SUM)):
                        continue
                    with suppress(FileNotFoundError):
                        info = os.stat(path)
                        yield info.st_atime_ns, info.st_size, path


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _opened(data: bytes, *, check: bool = True) -> bytes | None:
    """What stands behind a checksum, if that matches."""
    body = data[4:]
    if check and (len(data) < 4 or zlib.crc32(body).to_bytes(4, "little") != data[:4]):
        return None
    return body


def _sum_of(path: Path) -> Path:
    return path.with_name(path.name + _SUM)


def _matches(f: IO[bytes], path: Path, size: int) -> bool:
    """Whether an open copy has the size and checksum noted beside it."""
    try:
        noted = json.loads(_sum_of(path).read_bytes())
        if os.fstat(f.fileno()).st_size != size or noted["size"] != size:
            return False
        crc = 0
        while part := f.read(1 << 20):
            crc = zlib.crc32(part, crc)
        return noted["crc32"] == crc
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _touch(f: IO[bytes]) -> None:
    """Note the time of use, which file systems mounted noatime do not."""
    info = os.fstat(f.fileno())
    with suppress(OSError):
        os.utime(f.fileno(), ns=(time.time_ns(), info.st_mtime_ns))


def _remove_unlocked(path: str) -> bool:
    """Remove a file that no process holds a lock on."""
    try:
        with open(path, "rb") as f:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path).st_ino != os.fstat(f.fileno()).st_ino:
                return False  # replaced meanwhile
            os.unlink(path)
            return True
    except OSError:
        return False
