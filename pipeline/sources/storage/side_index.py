"""Where records begin in files that do not say so: found once, then kept in the cache folder."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import logging
import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.storage.atomic import written_whole
from pipeline.sources.storage.storage import Stat, Storage, is_url

LOGGER = logging.getLogger("pipeline")
Arrays = dict[str, NDArray[Any]]

_MAGIC = b"LOCKSTEP INDEX 1\n"
_FRAME = struct.Struct(f"<{len(_MAGIC)}sQI")  # magic, bytes and checksum of the head
_ALIGN = 64
_SMALL = 1 << 20  # bytes of a local file that is read again as fast as its index would be
_STALE = 3600  # seconds after which the temporary file of a killed writer is swept away


def cache_folder(storage: Storage) -> str:
    """Where side files are kept: the storage's cache, else `lockstep` in the user's cache folder.

    The storage's cache is its own, or what LOCKSTEP_CACHE names.
    """
    known = storage.cache or os.environ.get("LOCKSTEP_CACHE")
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.fsdecode(known) if known else os.path.join(caches, "lockstep")
    return os.path.abspath(os.path.expanduser(folder))


def indexed(
    stat: Stat, storage: Storage, kind: str, build: Callable[[Stat, Storage], Mapping[str, Any]]
) -> Arrays:
    """The index of one file: as it was kept, or built now and kept for the next process.

    It is kept under the file's path and `kind`, and holds while size, tag and, for a local file,
    time of change are the same; a stale or damaged one is built anew and replaced. Local files
    under 1 MiB are indexed each time. Where the cache folder cannot be written, the index is good
    for this process alone, and the logger "pipeline" says so.

    Args:
        stat: the file.
        storage: how it is reached.
        kind: names the format and the version of what `build` finds.
        build: finds the index: arrays by name, none of objects.

    Returns:
        The arrays, read-only; large ones are mapped, so that processes share them.

    >>> stat = Storage().stat(os.devnull)
    >>> indexed(stat, Storage(), "ends", lambda stat, storage: {"end": np.array([stat.size])})
    {'end': array([0])}
    """
    if not is_url(stat.path) and stat.size < _SMALL:
        return _plain(build(stat, storage))
    facts = _facts(stat, kind)
    name = hashlib.blake2b(f"{kind}\0{stat.path}".encode("utf-8", "surrogateescape"))
    path = os.path.join(cache_folder(storage), "index", f"{name.hexdigest()[:32]}.idx")
    found = _load(path, facts)
    if found is None:
        found = _plain(build(stat, storage))
        if _facts(stat, kind) == facts:  # else it changed meanwhile: the caller will see it
            _keep(path, facts, found)
    return found


def _plain(arrays: Mapping[str, Any]) -> Arrays:
    plain = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    for a in plain.values():
        a.flags.writeable = False
    return plain


def _facts(stat: Stat, kind: str) -> dict[str, Any]:
    path = os.fsencode(stat.path).hex() if not stat.path.isprintable() else stat.path
    facts: dict[str, Any] = {"path": path, "size": stat.size, "tag": stat.tag, "kind": kind}
    if not is_url(stat.path):
        facts["changed"] = os.stat(stat.path).st_mtime_ns
    return facts


def _load(path: str, facts: dict[str, Any]) -> Arrays | None:
    """The arrays of a side file, or None if it is missing, damaged or of another file."""
    try:
        with open(path, "rb") as f:
            data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # ValueError: it is empty
        return None
    try:
        magic, size, crc = _FRAME.unpack(data[: _FRAME.size])
        end = _FRAME.size + size
        if magic != _MAGIC or zlib.crc32(data[_FRAME.size : end]) != crc:
            return None
        head = json.loads(data[_FRAME.size : end])
        body = memoryview(data)[_aligned(end) :]
        if (
            head["facts"] != facts
            or len(body) != head["bytes"]
            or zlib.crc32(body) != head["crc32"]
        ):
            return None
        return {name: _view(body, *rest) for name, *rest in head["arrays"]}
    except (struct.error, ValueError):
        return None


def _view(body: memoryview, dtype: str, shape: list[int], offset: int) -> NDArray[Any]:
    kind = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(body, kind, count, offset).reshape(shape)


def _keep(path: str, facts: dict[str, Any], arrays: Arrays) -> None:
    """Write a side file whole or not at all; a failure costs the next process some time only."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _sweep(path)
        with written_whole(path) as f:
            _write(f, facts, arrays)
    except OSError as e:
        LOGGER.warning(
            f"the index of {facts['path']} cannot be kept ({e}), so each process builds it anew. "
            "Set LOCKSTEP_CACHE to a folder that can be written."
        )


def _write(f: Any, facts: dict[str, Any], arrays: Arrays) -> None:
    offset, crc, table = 0, 0, []
    parts: list[memoryview | bytes] = []
    for name, a in arrays.items():
        table.append([name, a.dtype.str, list(a.shape), offset])
        raw = a.reshape(-1).view(np.uint8).data if a.size else b""
        padding = bytes(_aligned(len(raw)) - len(raw))
        offset += len(raw) + len(padding)
        parts += [raw, padding]
    for part in parts:
        crc = zlib.crc32(part, crc)
    head = json.dumps({"facts": facts, "bytes": offset, "crc32": crc, "arrays": table}).encode()
    end = _FRAME.size + len(head)
    f.write(_FRAME.pack(_MAGIC, len(head), zlib.crc32(head)) + head + bytes(_aligned(end) - end))
    for part in parts:
        f.write(part)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN) * _ALIGN


def _sweep(path: str) -> None:
    for part in glob.glob(f"{glob.escape(path)}.*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - os.stat(part).st_mtime > _STALE:
                os.unlink(part)


def memory_of(arrays: Arrays) -> int:
    """Bytes of memory that arrays take."""
    return sum(a.nbytes for a in arrays.values())
