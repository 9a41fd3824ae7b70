"""Rows kept in a folder by position: any number of processes read and write it, and may be killed.

`index` holds an int64 for each position: where its row lies in one of the `rows.*` files, or 0. A
process appends rows to a file of its own, then points the index there. Every row carries its
position and a checksum, so a row that a kill, a crash or a bad disk has damaged is computed again,
never served. No file is memory-mapped: reading a truncated one then gives fewer bytes, not a crash.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.block import Int64s, Values
from pipeline.errors import ChainError, SourceError
from pipeline.nodes.cache.rows import decode, encode
from pipeline.sources.complaints import parsing, warn_once
from pipeline.sources.storage.advice import can_tell, is_absent, tell
from pipeline.sources.storage.arrays import StoredArray
from pipeline.sources.storage.atomic import written_whole
from pipeline.sources.storage.local import LocalFile
from pipeline.sources.storage.lru import OpenFiles

_ENTRY = struct.Struct("<4sIqI4x")  # magic, bytes of the row, its position, CRC-32 of both
_MAGIC = b"lsr1"
_OFFSET_BITS = 44  # 16 TiB a file, 2**19 files
_LONGEST = 1 << 20  # bytes of packages.json that are read, at most
_GUESS = 1 << 16  # bytes of an entry that are read while no entry's size is known


class Disk:
    """Up to n rows of one dataset, in `folder/key`. A read-only folder is read and gains no rows.

    Args:
        folder: a folder on a disk of this machine, created if missing.
        key: identifies the dataset; each dataset has a folder of its own.
        n: how many positions there are.

    Raises:
        ChainError: the folder cannot be created or read.
    """

    def __init__(self, folder: str, key: str, n: int) -> None:
        self._folder, self._n = Path(folder) / key, n
        self._lock = threading.Lock()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file, self._writable = self._open_index()
        except OSError as e:
            raise ChainError(
                f"cache({folder!r}): {e}. Give a folder that can be written to."
            ) from e
        self._index = _Index(self._file, np.dtype("<i8"), (n,), 0)
        self._begin()

    def _open_index(self) -> tuple[LocalFile, bool]:
        path = self._folder / "index"
        try:
            file = LocalFile(path, os.O_RDWR | os.O_CREAT)
        except OSError:
            return LocalFile(path), False
        if file.size < 8 * self._n:
            os.ftruncate(file.fd, 8 * self._n)  # holes read as 0; it never shrinks
        return file, True

    def _begin(self) -> None:
        self._pid, self._guess = os.getpid(), _GUESS
        self._rows = OpenFiles[int, LocalFile]()
        self._own: tuple[int, int] | None = None  # the file that this process appends to, open

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self._folder

    def packages(self, now: dict[str, str]) -> Any:
        """The package versions noted when the cache was begun; `now` if this process begins it.

        None where they cannot be read: the rows may be served all the same.
        """
        path = self._folder / "packages.json"
        with suppress(OSError, ValueError, RecursionError):
            if now and not path.exists() and self._writable:
                with written_whole(path) as file:
                    file.write(json.dumps(now).encode())
                return now
            return json.loads(LocalFile(path).read(0, _LONGEST))
        return None

    def get(self, positions: Int64s) -> tuple[list[tuple[Int64s, Values]], Int64s]:
        with self._lock:
            self._check_process()
            at = self._index[positions]
            found: dict[int, bytes] = {}
            self._tell(np.sort(at[at != 0]))
            for i in np.flatnonzero(at)[np.argsort(at[at != 0], kind="stable")].tolist():
                row = self._row(int(at[i]), int(positions[i]))
                if row is not None:
                    found[i] = row
        places = np.array(sorted(found), np.int64)
        try:
            with parsing(str(self._folder)):
                parts = decode([found[i] for i in places.tolist()])
        except SourceError as e:
            self._say(f"cannot read the cache {self._folder}: {e}")
            parts, places = [], places[:0]
        pieces = [(places[some], rows) for some, rows in parts]
        return pieces, np.setdiff1d(np.arange(len(positions)), places)

    def put(self, positions: Int64s, values: Values) -> Values:
        if not len(positions):
            return values
        payloads = encode(values)
        entries = [_entry(p, row) for p, row in zip(positions.tolist(), payloads, strict=True)]
        with self._lock:
            self._check_process()
            try:
                if self._writable:
                    self._append(positions, entries)
                else:
                    self._say(f"cannot write to the cache {self._folder}: it may only be read")
            except OSError as e:  # it is a cache: a full disk makes it useless, not wrong
                self._say(f"cannot write to the cache {self._folder}: {e}")
        return values

    def _append(self, positions: Int64s, entries: list[bytes]) -> None:
        self._own = self._own or self._new_file()
        number, fd = self._own
        start = os.lseek(fd, 0, os.SEEK_END)
        rest = memoryview(b"".join(entries))
        while rest:
            rest = rest[os.write(fd, rest) :]
        sizes = [len(entry) for entry in entries]
        at = (number << _OFFSET_BITS) + start + np.concatenate([[0], np.cumsum(sizes)])[:-1] + 1
        cuts = np.flatnonzero(np.diff(positions) != 1) + 1
        for run, where in zip(np.split(positions, cuts), np.split(at, cuts), strict=True):
            os.pwrite(self._file.fd, where.astype("<i8").tobytes(), 8 * int(run[0]))

    def _new_file(self) -> tuple[int, int]:
        taken = [int(p.suffix[1:]) for p in self._folder.glob("rows.*") if p.suffix[1:].isdecimal()]
        number = max(taken, default=-1) + 1
        while True:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
                self._own_file = LocalFile(self._path(number), flags)
                return number, self._own_file.fd
            except FileExistsError:
                number += 1

    def _path(self, number: int) -> Path:
        return self._folder / f"rows.{number}"

    def _tell(self, at: Int64s) -> None:
        # a cold disk works on all rows at once if the kernel is told of them
        if not can_tell() or len(at) < 2:
            return
        numbers, offsets = at - 1 >> _OFFSET_BITS, (at - 1) & ((1 << _OFFSET_BITS) - 1)
        for number in np.unique(numbers).tolist():
            mine = offsets[numbers == number]
            with suppress(OSError):  # reading it says why
                file = self._rows.get(number, self._opened)
                if is_absent(file.fd, int(mine[-1])):
                    tell(file.fd, mine, mine + self._guess)

    def _opened(self, number: int) -> LocalFile:
        return LocalFile(self._path(number))

    def _row(self, at: int, position: int) -> bytes | None:
        # None unless the whole row of this position lies there
        number, offset = at - 1 >> _OFFSET_BITS, (at - 1) & ((1 << _OFFSET_BITS) - 1)
        try:
            file = self._rows.get(number, self._opened)
            data = file.read(offset, offset + self._guess)
            magic, size, kept, crc = _ENTRY.unpack_from(data)
            end = _ENTRY.size + size
            if len(data) < end <= file.size:
                data += file.read(offset + len(data), offset + end)
            row = data[_ENTRY.size : end]
            if (magic, kept, crc) == (_MAGIC, position, _crc(position, row)) and len(row) == size:
                self._guess = max(64, end)  # the next row is likely as large
                return row
        except (OSError, struct.error, OverflowError) as e:
            self._say(f"cannot read the cache {self._folder}: {type(e).__name__}: {e}; made anew")
            return None
        self._say(f"the cache {self._folder} is damaged at rows.{number}; its rows are made anew")
        return None

    def _check_process(self) -> None:
        if self._pid != os.getpid():  # a forked child writes to a file of its own
            self._begin()

    def _say(self, message: str) -> None:
        warn_once(message, (self._folder, message.partition(":")[0]))


class _Index(StoredArray):
    """The index file; what was cut off reads as 0."""

    def _read(self, start: int, stop: int) -> bytes:
        return self._file.read(start, stop).ljust(stop - start, b"\0")


def _entry(position: int, row: bytes) -> bytes:
    return _ENTRY.pack(_MAGIC, len(row), position, _crc(position, row)) + row


def _crc(position: int, row: bytes) -> int:
    return zlib.crc32(row, position & 0xFFFFFFFF)
