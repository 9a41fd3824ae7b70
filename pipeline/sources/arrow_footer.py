"""What the end of an Arrow IPC file says: where its record batches lie, and their rows."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.block import Int64s
from pipeline.sources.complaints import unreadable
from pipeline.sources.storage.spans import Span
from pipeline.sources.storage.storage import Stat

_MAGIC, _FEATHER_1 = b"ARROW1", b"FEA1"
_TAIL = 64 << 10
_BLOCK = np.dtype([("at", "<i8"), ("message", "<i4"), ("padding", "<i4"), ("body", "<i8")])
Fetch = Callable[[Sequence[tuple[Stat, Span]]], Sequence[bytes]]


class Footer(NamedTuple):
    """Where an IPC file's parts lie.

    Attributes:
        span: the footer itself, to the end of the file.
        digest: of its bytes.
        dictionaries: int64[d, 3], of each block that every batch may need: its first byte, bytes of
            its message, bytes of the buffers which that describes.
        batches: int64[b, 3], the same of each record batch, in order.
        rows: int64[b], of each batch.
        codecs: what buffers are compressed with; none if nothing is.
    """

    span: Span
    digest: bytes
    dictionaries: Int64s
    batches: Int64s
    rows: Int64s
    codecs: tuple[str, ...]

    def block(self, batch: int) -> Span:
        """Where a record batch lies."""
        start, message, body = self.batches[batch].tolist()
        return start, start + message + body

    def common(self) -> list[Span]:
        """What reading any batch takes besides it."""
        return [(a, a + m + b) for a, m, b in self.dictionaries.tolist()] + [self.span]


def footers(stats: Sequence[Stat], fetch: Fetch) -> Iterator[Footer]:
    """The footer of each file: reads of all ends, of long footers, and of all batches' metadata.

    Raises:
        SourceError: a file is no Arrow IPC file.
    """
    spans = [(max(0, stat.size - _TAIL), stat.size) for stat in stats]
    ends = list(fetch(list(zip(stats, spans, strict=True))))
    lengths = [_length(stat, end) for stat, end in zip(stats, ends, strict=True)]
    long = [i for i, end in enumerate(ends) if lengths[i] > len(end)]
    more = fetch([(stats[i], (stats[i].size - lengths[i], stats[i].size)) for i in long])
    for i, end in zip(long, more, strict=True):
        ends[i] = end
    for stat, end, length in zip(stats, ends, lengths, strict=True):
        yield _footer(stat, end[-length:], fetch)


def _length(stat: Stat, end: bytes) -> int:
    # of the footer with its length and magic behind it
    if end[-4:] == _FEATHER_1:
        raise unreadable(stat.path, "it is Feather version 1; version 2 is Arrow IPC")
    length = int.from_bytes(end[-10:-6], "little") + 10
    if end[-6:] != _MAGIC or length > stat.size:
        raise unreadable(
            stat.path, "it does not end as an Arrow IPC file does (a stream, or cut short?)"
        )
    return length


def _footer(stat: Stat, end: bytes, fetch: Fetch) -> Footer:
    start = stat.size - len(end)
    try:
        root = _Table.root(end)
        dictionaries, batches = (_checked(root.blocks(number), start) for number in (2, 3))
        messages = fetch([(stat, (at, at + message)) for at, message, _ in batches.tolist()])
        headers = [_header(message) for message in messages]
        rows = np.array([header.int64(0) for header in headers], np.int64)
        if len(rows) and rows.min() < 0:
            raise ValueError(f"a batch of {rows.min()} rows")
        codecs = {_codec(header) for header in headers} - {""}
    except (struct.error, ValueError, IndexError) as e:
        raise unreadable(stat.path, f"its footer is damaged ({e})") from e
    span, known = (start, stat.size), digest(end)
    return Footer(span, known, dictionaries, batches, rows, tuple(sorted(codecs)))


def digest(footer: bytes) -> bytes:
    """What tells a footer's bytes from others."""
    return hashlib.blake2b(footer, digest_size=8).digest()


def _checked(blocks: Int64s, end: int) -> Int64s:
    start, message, body = blocks.T
    bad = (start < 8) | (message < 8) | (body < 0) | (start + message + body > end)
    if bad.any():
        raise ValueError(f"a block is said to start at byte {start[bad][0]}")
    return blocks


def _header(message: bytes) -> _Table:
    # an encapsulated message: -1, its length, a flatbuffer; before format 5 no -1
    at = 8 if message[:4] == b"\xff\xff\xff\xff" else 4
    header = _Table.root(message[at:]).table(2)
    if header is None:
        raise ValueError("a message without a header")
    return header


def _codec(header: _Table) -> str:
    compression = header.table(3)
    return "" if compression is None else ("LZ4", "ZSTD")[compression.int8(0)]


class _Table:
    """A flatbuffer's table (flatbuffers.dev, "internals"): fields found through a vtable."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._vtable = at - _int(data, "<i", at)
        self._size = _int(data, "<H", self._vtable)

    @staticmethod
    def root(data: bytes) -> _Table:
        return _Table(data, _int(data, "<I", 0))

    def _field(self, number: int) -> int | None:
        slot = 4 + 2 * number
        offset = _int(self._data, "<H", self._vtable + slot) if slot < self._size else 0
        return self._at + offset if offset else None

    def int64(self, number: int) -> int:
        at = self._field(number)
        return 0 if at is None else _int(self._data, "<q", at)

    def int8(self, number: int) -> int:
        at = self._field(number)
        return 0 if at is None else _int(self._data, "<b", at)

    def table(self, number: int) -> _Table | None:
        at = self._field(number)
        return None if at is None else _Table(self._data, at + _int(self._data, "<I", at))

    def blocks(self, number: int) -> Int64s:
        """A vector of Block structs: int64[n, 3] of offset, metadata length, body length."""
        at = self._field(number)
        if at is None:
            return np.zeros((0, 3), np.int64)
        at += _int(self._data, "<I", at)
        count = _int(self._data, "<I", at)
        found = np.frombuffer(self._data, _BLOCK, count, at + 4)  # ValueError where too short
        return np.stack([found[name].astype(np.int64) for name in ("at", "message", "body")], 1)


def _int(data: bytes, kind: str, at: int) -> int:
    if at < 0:  # struct would count from the end
        raise ValueError(f"an offset of {at}")
    return struct.unpack_from(kind, data, at)[0]
