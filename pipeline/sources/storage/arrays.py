"""Files of named arrays with JSON facts: a file is loaded whole and checked, or not at all.

No file is memory-mapped: if a mapped file is truncated, every process that touches the mapping is
killed. Small arrays are read as a whole; of large ones only the rows that are indexed.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError, SourceError
from pipeline.sources.complaints import parsed_json, parsing
from pipeline.sources.storage.atomic import written_whole
from pipeline.sources.storage.local import LocalFile
from pipeline.sources.storage.lru import LRU
from pipeline.sources.storage.spans import merge

Arrays = dict[str, Any]
"""Arrays by name: NumPy's, read-only, or `StoredArray` where they are large."""

_MAGIC = b"LOCKSTEP INDEX 1\n"
_FRAME = struct.Struct(f"<{len(_MAGIC)}sQI")  # magic, bytes and checksum of the head
_ALIGN = 64
_IN_MEMORY = 64 << 20  # a file of at most so many bytes is read as a whole
_SMALL = 1 << 20  # an array of at most so many bytes is read as a whole, however large its file
_PART = 4 << 20
_GAP = 4096


class StoredArray:
    """A large array that stays in its file. Indexing reads just the rows asked for.

    Args:
        file: holds the array's bytes in C order.
        dtype, shape, offset: of the array; `offset` is its first byte in the file.
        error: the class to raise if the file was truncated.
    """

    def __init__(
        self,
        file: LocalFile,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        offset: int,
        error: type[PipelineError] = SourceError,
    ) -> None:
        self._file, self._offset, self._error = file, offset, error
        self.dtype, self.shape = dtype, shape
        self._row = dtype.itemsize * math.prod(shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: Any) -> NDArray[Any]:
        """Copies of rows, chosen by a slice of step 1 or by an int64 array of any shape."""
        if isinstance(at, slice):
            start, stop, _ = at.indices(len(self))
            return self._rows(start, max(start, stop))
        wanted = np.asarray(at, np.int64)
        flat = wanted.ravel()
        if len(flat) and not 0 <= flat.min() <= flat.max() < len(self):
            raise IndexError(f"row {flat.max()} or {flat.min()} is outside of {len(self)}")
        runs = merge(np.zeros_like(flat), flat, flat + 1, gap=_GAP // self._row)
        spans = zip(runs.start.tolist(), runs.stop.tolist(), strict=True)
        parts = [self._rows(*span) for span in spans]
        first = np.cumsum([0, *map(len, parts)])[:-1] - runs.start
        rows = np.concatenate(parts or [self._rows(0, 0)])
        return rows[first[runs.run] + flat].reshape(*wanted.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return self.dtype.itemsize * math.prod(self.shape)

    def in_memory(self) -> NDArray[Any]:
        """The whole array, read-only."""
        if self.dtype.hasobject:
            raise ValueError("it holds Python objects")
        data = self._read(0, self.nbytes)
        found = np.frombuffer(data, self.dtype) if data else np.zeros(0, self.dtype)
        found = found.reshape(self.shape)
        found.flags.writeable = False
        return found

    def reshape(self, rows: int, width: int) -> StoredArray:
        """The first `rows * width` elements as rows of `width`."""
        return StoredArray(self._file, self.dtype, (rows, width), self._offset, self._error)

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        data = self._read(start * self._row, stop * self._row)
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])

    def _read(self, start: int, stop: int) -> bytes:
        data = self._file.read(self._offset + start, self._offset + stop)
        if len(data) < stop - start:
            raise self._error(
                f"{self._file.path} was cut while it was in use: it ends at byte "
                f"{self._offset + start + len(data)}. Remove it and start again: it is made anew."
            )
        return data


def memory_of(arrays: Arrays) -> int:
    """Bytes that these arrays occupy in memory. A `StoredArray` counts as 1 MiB."""
    return sum(a.nbytes if isinstance(a, np.ndarray) else _SMALL for a in arrays.values())


# ---- named arrays with facts


def save_arrays(
    path: str,
    arrays: Mapping[str, NDArray[Any]],
    facts: Mapping[str, Any],
    *,
    drafts: str = "",
    durable: bool = False,
) -> None:
    """Write arrays and JSON facts to a file, whole or not at all.

    Args:
        path, drafts, durable: as for `written_whole`.
        arrays: by name; none may have dtype object.
        facts: what the arrays were made from, of JSON types. `load_arrays` must be given equal
            facts.

    Raises:
        OSError: the file cannot be written.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/a"
    >>> save_arrays(path, {"ends": np.array([3, 5])}, {"of": "a.jsonl"})
    >>> load_arrays(path, {"of": "a.jsonl"}), load_arrays(path, {"of": "b.jsonl"})
    ({'ends': array([3, 5])}, None)
    """
    with written_whole(path, drafts=drafts, durable=durable) as f:
        _write(f, facts, arrays)


def _write(f: IO[bytes], facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    offset, crc, table = 0, 0, []
    parts: list[Any] = []
    for name, array in arrays.items():
        a = np.asarray(array, order="C")
        table.append([name, a.dtype.str, list(a.shape), offset])
        raw = a.reshape(-1).view(np.uint8).data if a.size else b""
        padding = bytes(_aligned(len(raw)) - len(raw))
        offset += len(raw) + len(padding)
        parts += [raw, padding]
    for part in parts:
        crc = zlib.crc32(part, crc)
    head = {"facts": facts, "bytes": offset, "crc32": crc, "arrays": table}
    text = json.dumps(head).encode()
    end = _FRAME.size + len(text)
    f.write(_FRAME.pack(_MAGIC, len(text), zlib.crc32(text)) + text + bytes(_aligned(end) - end))
    for part in parts:
        f.write(part)


def load_arrays(path: str, facts: Mapping[str, Any]) -> Arrays | None:
    """The arrays of a file, or None if it is missing, damaged, or was saved with other facts."""
    try:
        with parsing(path):
            file = LocalFile(path)
            file.touch()
            return _loaded(file, facts)
    except (OSError, SourceError):
        return None


def _loaded(file: LocalFile, facts: Mapping[str, Any]) -> Arrays | None:
    magic, size, crc = _FRAME.unpack(file.read(0, _FRAME.size))
    end = _FRAME.size + size
    if magic != _MAGIC or end > file.size:
        return None
    text = file.read(_FRAME.size, end)
    if zlib.crc32(text) != crc:
        return None
    head, first = parsed_json(text, file.path), _aligned(end)
    if head["facts"] != facts or file.size != first + head["bytes"]:
        return None
    if _checksum(file, first) != head["crc32"]:
        return None
    stays = head["bytes"] > _IN_MEMORY
    found: Arrays = {}
    for name, kind, shape, offset in head["arrays"]:
        array = StoredArray(file, np.dtype(kind), tuple(shape), first + offset)
        found[name] = array if stays and array.nbytes > _SMALL else array.in_memory()
    return found


def _checksum(file: LocalFile, start: int) -> int:
    crc, end = 0, file.size
    for at in range(start, end, _PART):
        crc = zlib.crc32(file.read(at, min(at + _PART, end)), crc)
    return crc


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN) * _ALIGN


# ---- one array as .npy


def load_npy(path: str, error: type[PipelineError], remedy: str) -> Any:
    """The array of a `.npy` file, read-only; a `StoredArray` if it exceeds 64 MiB.

    Args:
        path: a file in C order, which Lockstep wrote.
        error: the class to raise if it is missing, truncated or damaged.
        remedy: the last sentence of that error's message.

    Raises:
        PipelineError: of the class `error`.
    """
    try:
        with parsing(path, error=error, remedy=remedy):
            file = LocalFile(path)
            info = os.fstat(file.fd)
            key = file.path, info.st_ino, info.st_size, info.st_mtime_ns
            return _LOADED.get(key, lambda _: _load_npy(file, error))
    except OSError as e:
        raise error(f"cannot read {path}: {e}. {remedy}") from e


def _load_npy(file: LocalFile, error: type[PipelineError]) -> Any:
    with open(file.fd, "rb", closefd=False) as f:
        f.seek(0)
        version = np.lib.format.read_magic(f)
        head = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                else np.lib.format.read_array_header_2_0)  # fmt: skip
        shape, _, dtype = head(f)
        offset = f.tell()
    stored = StoredArray(file, dtype, shape, offset, error)
    if file.size != offset + stored.nbytes:
        raise ValueError(f"{shape} of {dtype} needs {stored.nbytes} bytes behind byte {offset}")
    return stored if stored.nbytes > _IN_MEMORY else stored.in_memory()


_LOADED: LRU[Any, Any] = LRU(256 << 20, weigh=lambda a: memory_of({"": a}))
