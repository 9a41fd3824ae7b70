"""Rows kept in a folder by position: any number of processes read and write it, and may be killed.

`index` holds an int64 a position: where its row lies in one of the `rows.*` files, 0 if nowhere. A
process appends to a file of its own and then points the index there. Every row carries its position
and a checksum, so whatever a kill, a crash or a bad disk leaves behind is made anew, never served.
"""

from __future__ import annotations

import os
import struct
import threading
import weakref
import zlib
from pathlib import Path

import numpy as np

from pipeline.block import Int64s, Values
from pipeline.errors import ChainError
from pipeline.nodes.cache.rows import decode, encode
from pipeline.nodes.faults import LOGGER

_ENTRY = struct.Struct("<4sIqI4x")  # magic, bytes of the row, its position, CRC-32 of both
_MAGIC = b"lsr1"
_OFFSET_BITS = 44  # 16 TiB a file, 2**19 files
_MOST_OPEN = 128
_GUESS = 1 << 16  # bytes read at first of an entry of unknown size


class Disk:
    """Up to n rows of one dataset, in `folder/key`.

    Args:
        folder: on a disk of this machine; made if missing.
        key: names the dataset; another one has another folder.
        n: how many positions there are.

    Raises:
        ChainError: the folder is a URL or cannot be written to.
    """

    def __init__(self, folder: str, key: str, n: int) -> None:
        self._folder, self._n = Path(folder) / key, n
        self._lock = threading.Lock()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._open_index()
        except OSError as e:
            raise ChainError(
                f"cache({folder!r}): {e}. Give a folder that can be written to."
            ) from e
        self._begin()

    def _open_index(self) -> None:
        path = self._folder / "index"
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if os.fstat(fd).st_size < 8 * self._n:
            os.ftruncate(fd, 8 * self._n)  # holes read as 0; it never shrinks
        # written by pwrite: storing to a mapped hole of a full disk would kill the process
        self._fds: list[int] = [fd]
        weakref.finalize(self, _close, self._fds)
        self._index = np.memmap(path, "<i8", "r", shape=(self._n,)) if self._n else np.zeros(0, int)

    def _begin(self) -> None:
        self._pid, self._files = os.getpid(), dict[int, int]()
        self._own: tuple[int, int] | None = None  # the file that this process appends to
        self._guess, self._said = _GUESS, set[str]()

    def get(self, positions: Int64s) -> tuple[list[tuple[Int64s, Values]], Int64s]:
        with self._lock:
            self._check_process()
            at = np.asarray(self._index[positions], np.int64)
            found: dict[int, bytes] = {}
            for i in np.flatnonzero(at)[np.argsort(at[at != 0], kind="stable")].tolist():
                row = self._row(int(at[i]), int(positions[i]))
                if row is not None:
                    found[i] = row
        places = np.array(sorted(found), np.int64)
        pieces = [
            (places[some], rows) for some, rows in decode([found[i] for i in places.tolist()])
        ]
        return pieces, np.setdiff1d(np.arange(len(positions)), places)

    def put(self, positions: Int64s, values: Values) -> Values:
        if not len(positions):
            return values
        payloads = encode(values)
        entries = [_entry(p, row) for p, row in zip(positions.tolist(), payloads, strict=True)]
        with self._lock:
            self._check_process()
            try:
                self._append(positions, entries)
            except OSError as e:  # it is a cache: a full disk makes it useless, not wrong
                self._say(f"cannot write to the cache {self._folder}: {e}")
        return values

    def _append(self, positions: Int64s, entries: list[bytes]) -> None:
        if self._own is None:
            self._own = self._new_file()
            self._fds.append(self._own[1])
        file, fd = self._own
        start = os.lseek(fd, 0, os.SEEK_END)
        rest = memoryview(b"".join(entries))
        while rest:
            rest = rest[os.write(fd, rest) :]
        sizes = [len(entry) for entry in entries]
        at = (file << _OFFSET_BITS) + start + np.concatenate([[0], np.cumsum(sizes)])[:-1] + 1
        cuts = np.flatnonzero(np.diff(positions) != 1) + 1
        for run, where in zip(np.split(positions, cuts), np.split(at, cuts), strict=True):
            os.pwrite(self._fds[0], where.astype("<i8").tobytes(), 8 * int(run[0]))

    def _new_file(self) -> tuple[int, int]:
        taken = [int(p.suffix[1:]) for p in self._folder.glob("rows.*") if p.suffix[1:].isdecimal()]
        file = max(taken, default=-1) + 1
        while True:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
                return file, os.open(self._folder / f"rows.{file}", flags, 0o666)
            except FileExistsError:
                file += 1

    def _row(self, at: int, position: int) -> bytes | None:
        # None where what lies there is not this row, whole
        file, offset = at - 1 >> _OFFSET_BITS, (at - 1) & ((1 << _OFFSET_BITS) - 1)
        try:
            fd = self._file(file)
            data = os.pread(fd, self._guess, offset)
            magic, size, held, crc = _ENTRY.unpack_from(data)
            end = _ENTRY.size + size
            if len(data) < end:
                data += os.pread(fd, end - len(data), offset + len(data))
            row = data[_ENTRY.size : end]
            if (magic, held, crc) == (_MAGIC, position, _crc(position, row)) and len(row) == size:
                self._guess = max(64, end)  # of the next one, likely
                return row
        except (OSError, struct.error, OverflowError) as e:
            self._say(f"cannot read the cache {self._folder}: {type(e).__name__}: {e}; made anew")
            return None
        self._say(f"the cache {self._folder} is damaged at rows.{file}; its rows are made anew")
        return None

    def _file(self, file: int) -> int:
        if file not in self._files:
            if len(self._files) >= _MOST_OPEN:
                oldest = self._files.pop(next(iter(self._files)))
                self._fds.remove(oldest)
                os.close(oldest)
            self._files[file] = os.open(self._folder / f"rows.{file}", os.O_RDONLY)
            self._fds.append(self._files[file])
        return self._files[file]

    def _check_process(self) -> None:
        if self._pid != os.getpid():  # a forked child writes to a file of its own
            self._begin()

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            LOGGER.warning(message)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _entry(position: int, row: bytes) -> bytes:
    return _ENTRY.pack(_MAGIC, len(row), position, _crc(position, row)) + row


def _crc(position: int, row: bytes) -> int:
    return zlib.crc32(row, position & 0xFFFFFFFF)
