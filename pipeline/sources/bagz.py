"""Where records live: Bagz files, local or remote, plain or compressed by record."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import SourceError
from pipeline.sources.framed import FramedSource
from pipeline.sources.storage.arrays import Arrays
from pipeline.sources.storage.files import Paths, unreadable
from pipeline.sources.storage.side_index import indexed
from pipeline.sources.storage.storage import Stat, Storage

if TYPE_CHECKING:
    import pyarrow as pa

_MAGIC = b"\x28\xb5\x2f\xfd"
_MOST = 1 << 31  # bytes of a record: a damaged header may promise any number


class BagzSource(FramedSource):
    """Records of Bagz files, as bytes; files end to end in the order given.

    Only the bytes of the records asked for are read, from local files and URLs alike. A file holds
    where each record ends; the package bagz is not needed.

    Args:
        paths: a path, a glob, `name@20.bagz` for 20 shards, or a list of these.
        compression: of each record: "zstd", "none", or "auto": zstd in files named `.bagz`.
        storage: how URLs are reached.

    Raises:
        SourceError: a file is missing, truncated or no Bagz file.

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
    ) -> None:
        if compression not in ("auto", "zstd", "none"):
            raise SourceError(f'{compression=}: choose "auto", "zstd" or "none"')
        self._compression = compression
        super().__init__(paths, "bagz 1", _load, storage)

    def read(self, indices: Int64s) -> list[bytes]:
        """Records by index: a list of n bytes objects, in the order asked, repeats included.

        Raises:
            PositionError: an index below 0 or past the end.
            RecordError: a record does not decompress; the others stay readable.
            SourceError: a file was removed, cut or replaced.
        """
        at = self._locate(indices)
        records = self._fetch(at)
        packed = np.array([self._is_packed(path) for path in self._files.paths], bool)
        for i in np.flatnonzero(packed[at.file]).tolist():
            try:
                records[i] = _unpack(records[i])
            except (OSError, ValueError, MemoryError) as e:
                raise self._bad(at, i, e) from e
        return records

    def _is_packed(self, path: str) -> bool:
        named = self._compression == "auto" and path.endswith(".bagz")
        return named or self._compression == "zstd"

    def fingerprint(self) -> str:
        """Hex digest of base names, sizes, counts and ends; directories do not enter."""
        return self._files.fingerprint("bagz", self._compression)

    def layout(self) -> list[dict[str, Any]]:
        """Facts of each file: path, bytes, records, smallest, largest (as they lie), codec."""
        facts = self._layout("none")
        return [{**f, "codec": "zstd"} if self._is_packed(f["path"]) else f for f in facts]


def _load(stat: Stat, storage: Storage) -> Arrays:
    return indexed(stat, storage, "bagz 1", _limits)


def _limits(stat: Stat, storage: Storage) -> Arrays:
    """Where records end stands at the end of the file; the last one tells where that begins."""
    if stat.size == 0:
        return {"start": np.zeros(0, np.int64), "stop": np.zeros(0, np.int64)}
    if stat.size < 8:
        raise unreadable(stat.path, "too short for a Bagz file")
    (tail,) = storage.read([stat.range(stat.size - 8, stat.size)])
    first = int.from_bytes(tail, "little")
    if first > stat.size - 8 or (stat.size - first) % 8:
        raise unreadable(stat.path, "no Bagz file with its limits at the end, or a truncated one")
    (data,) = storage.read([stat.range(first, stat.size)])
    stop = np.frombuffer(data, "<i8").astype(np.int64)
    start = np.concatenate([[0], stop[:-1]]).astype(np.int64)
    if (stop < start).any() or stop[-1] != first:
        raise unreadable(stat.path, "no Bagz file with its limits at the end, or a truncated one")
    return {"start": start, "stop": stop}


@functools.cache
def _codec() -> pa.Codec:
    import pyarrow as pa

    return pa.Codec("zstd")


def _unpack(data: bytes) -> bytes:
    if not data:  # so an empty record is stored
        return data
    size = _content_size(data)
    if size is None:
        import pyarrow as pa

        return pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()
    if size > _MOST:
        raise ValueError(f"it promises {size} bytes")
    return _codec().decompress(data, size, asbytes=True) if size else b""


def _content_size(data: bytes) -> int | None:
    """Bytes of a zstd frame's content, where it says so (RFC 8878, section 3.1.1.1)."""
    if len(data) < 6 or data[:4] != _MAGIC:
        raise ValueError("it is no zstd frame")
    flags = data[4]
    single = flags >> 5 & 1
    start = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    if not width:
        return None
    return int.from_bytes(data[start : start + width], "little") + (256 if width == 2 else 0)
