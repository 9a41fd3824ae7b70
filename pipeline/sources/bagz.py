"""Bagz files, local or remote, whose records may be compressed one by one."""

from __future__ import annotations

import functools
import logging
import re
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.block import Int64s
from pipeline.checks import byte_count
from pipeline.errors import SourceError
from pipeline.sources.complaints import unreadable
from pipeline.sources.framed import FramedSource
from pipeline.sources.storage.arrays import Arrays
from pipeline.sources.storage.gather import read_spans
from pipeline.sources.storage.location import named
from pipeline.sources.storage.paths import ListedPath, Paths, expand, patterns
from pipeline.sources.storage.side_index import indexed
from pipeline.sources.storage.storage import Range, Stat, Storage

if TYPE_CHECKING:
    import pyarrow as pa

LOGGER = logging.getLogger("pipeline")
_MAGIC = b"\x28\xb5\x2f\xfd"
_LIMITS = re.compile(r"(.*/|)limits\.([^/]*)", re.DOTALL)
_NO_LIMITS = "no Bagz file with its limits at the end or beside it, or a truncated one"
_SAMPLE = 16  # records that are looked at to tell whether a file is compressed
_PIECE = 1 << 20


class BagzSource(FramedSource):
    """Records of Bagz files as bytes objects. Several files count as one, in the order given.

    Only the bytes of the records asked for are read, from local files and URLs alike. The limits,
    which say where records end, are at the end of a file or in a file `limits.NAME` beside it; a
    glob that matches such files skips them. The package bagz is not needed.

    Args:
        paths: a path, a glob, `name@20.bagz` for 20 shards, or a list of these.
        compression: of each record: "zstd", "none", or "auto". "auto" is zstd for files named
            `.bagz`, unless no record in a sample of at least two is a zstd frame.
        storage: how URLs are read.
        record_limit: bytes of one decompressed record at most. It guards memory against a damaged
            or hostile file.

    Raises:
        SourceError: a file is missing, truncated or not a Bagz file.

    >>> import tempfile, bagz
    >>> path = tempfile.mkdtemp() + "/a.bagz"
    >>> with bagz.Writer(path) as writer:
    ...     for word in (b"to", b"be", b"or"):
    ...         writer.write(word)
    >>> BagzSource(path).read(np.array([2, 0, 2]))
    [b'or', b'to', b'or']
    """

    def __init__(
        self,
        paths: Paths,
        *,
        compression: Literal["auto", "zstd", "none"] = "auto",
        storage: Storage | None = None,
        record_limit: int | str = "256MiB",
    ) -> None:
        if compression not in ("auto", "zstd", "none"):
            raise SourceError(f'{compression=}: choose "auto", "zstd" or "none"')
        self._compression = compression
        self._limit = byte_count("record_limit", record_limit, 1, SourceError)
        self._packed: dict[int, bool] = {}
        pattern = (*patterns(paths), "")[0]  # by which a manifest can tell that files are missing
        found = expand(paths, storage, empty=True)
        bags = _without_limits([ListedPath.of(stat, pattern) for stat in found])
        super().__init__(bags, "bagz 1", _load, storage, ("bagz", compression))

    def read(self, indices: Int64s) -> list[bytes]:
        """Records by index: a list of n bytes objects, in the order given, repeats included.

        Raises:
            PositionError: an index is negative or beyond the end.
            RecordError: a record cannot be decompressed; the others stay readable.
            SourceError: a file was removed, truncated or replaced.
        """
        at = self._locate(indices)
        records = self._fetch(at)
        for i, (file, record) in enumerate(zip(at.file.tolist(), records, strict=True)):
            if record and self._is_packed(file, record):  # empty records are not compressed
                try:
                    records[i] = _unpacked(record, self._limit)
                except (OSError, ValueError, MemoryError) as e:
                    raise self._bad(at, i, e) from e
        return records

    def _is_packed(self, file: int, record: bytes = b"") -> bool:
        if self._compression != "auto":
            return self._compression == "zstd"
        if not named(self._files.paths[file]).endswith(".bagz"):
            return False
        if record.startswith(_MAGIC):
            return True
        if file not in self._packed:
            self._packed[file] = self._has_frames(file)
        return self._packed[file]

    def _has_frames(self, file: int) -> bool:
        """Whether any record of a sample is a zstd frame. A single record may just be damaged."""
        index, path = self._index(file), self._files.paths[file]
        filled = np.flatnonzero(index["stop"] > index["start"])
        some = filled[np.linspace(0, len(filled) - 1, min(_SAMPLE, len(filled)), dtype=np.int64)]
        start, stop = index["start"][some], index["stop"][some]
        end = np.minimum(stop, start + len(_MAGIC))
        heads = read_spans(self._files, np.full(len(some), file), start, end)
        found = len(heads) < 2 or any(head == _MAGIC for head in heads)
        if not found:
            LOGGER.warning(f"{path} is named .bagz, but its records are not compressed")
        return found

    def _codec_of(self, file: int) -> str:
        return "zstd" if self._is_packed(file) else "none"


def _without_limits(paths: list[ListedPath]) -> list[ListedPath]:
    """Drop `limits.a.bagz` if `a.bagz` is in the list too."""
    every = set(map(str, paths))
    return [path for path in paths if not (found := _LIMITS.fullmatch(path)) or
            found[1] + found[2] not in every]  # fmt: skip


def _load(stat: Stat, storage: Storage) -> Arrays:
    return indexed(stat, storage, "bagz 1", _limits)


def _limits(stat: Stat, storage: Storage) -> Arrays:
    """Start and stop of each record, from the end of the file or from `limits.NAME` beside it."""
    if stat.size >= 8:
        (tail,) = storage.read([stat.range(stat.size - 8, stat.size)])
        first = int.from_bytes(tail, "little")  # the last limit: records end where the limits begin
        if first <= stat.size - 8 and (stat.size - first) % 8 == 0:
            return _spans(stat, stat.range(first, stat.size), first, storage)
    folder, slash, name = named(stat.path).rpartition("/")
    query = stat.path[len(named(stat.path)) :]
    try:
        side = storage.stat(f"{folder}{slash}limits.{name}{query}")
    except FileNotFoundError:
        if stat.size == 0:
            return {"start": np.zeros(0, np.int64), "stop": np.zeros(0, np.int64)}
        raise unreadable(stat.path, _NO_LIMITS) from None
    if side.size % 8 or (not side.size and stat.size):
        raise unreadable(side.path, f"limits of 8 bytes each do not make up its {side.size} bytes")
    return _spans(stat, side.range(0, side.size), stat.size, storage)


def _spans(stat: Stat, where: Range, end: int, storage: Storage) -> Arrays:
    (data,) = storage.read([where])
    stop = np.frombuffer(data, "<i8").astype(np.int64)
    start = np.concatenate([[0], stop[:-1]])[: len(stop)].astype(np.int64)
    if (stop < start).any() or (len(stop) and stop[-1] != end):
        i = int(np.argmax(np.append(stop < start, True)))
        place = where.start + 8 * min(i, len(stop) - 1)
        raise unreadable(where.path, f"{_NO_LIMITS}: see the limit at byte {place}")
    return {"start": start, "stop": stop}


@functools.cache
def _codec() -> pa.Codec:
    import pyarrow as pa

    return pa.Codec("zstd")


def _unpacked(data: bytes, limit: int) -> bytes:
    """The contents of a zstd frame.

    Raises:
        ValueError: the frame is damaged, or holds more than `limit` bytes.
    """
    size = _content_size(data)
    if size is None:
        return _streamed(data, limit)
    if size > limit:
        raise ValueError(_too_large(f"it promises {size} bytes", limit))
    return _codec().decompress(data, size, asbytes=True) if size else b""


def _streamed(data: bytes, limit: int) -> bytes:
    import pyarrow as pa

    parts, total = [], 0
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        while part := stream.read(_PIECE):
            total += len(part)
            if total > limit:
                raise ValueError(_too_large(f"it unpacks to more than {limit} bytes", limit))
            parts.append(part)
    return b"".join(parts)


def _too_large(what: str, limit: int) -> str:
    return f"{what}, over BagzSource(record_limit={limit}); raise that if it is right"


def _content_size(data: bytes) -> int | None:
    """Size of a zstd frame's content (RFC 8878, section 3.1.1.1); None if it does not say."""
    if len(data) < 6 or data[:4] != _MAGIC:
        raise ValueError('it is no zstd frame; of a plain file give compression="none"')
    flags = data[4]
    single = flags >> 5 & 1
    start = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    if len(data) < start + width:
        raise ValueError("its zstd frame is cut")
    if not width:
        return None
    return int.from_bytes(data[start : start + width], "little") + (256 if width == 2 else 0)
