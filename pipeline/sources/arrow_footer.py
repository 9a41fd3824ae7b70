"""Where the record batches of an Arrow IPC file or stream lie, and how many rows each has.

A file lists them in its footer. A stream has no footer: its messages are walked, one after another.
pyarrow gives neither offsets nor row counts without decoding each batch, so the few fields needed
are read from its flatbuffers here.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.block import Int64s
from pipeline.sources.complaints import parsing, unreadable
from pipeline.sources.storage.at_once import at_once
from pipeline.sources.storage.spans import Span
from pipeline.sources.storage.storage import Stat, is_url

_MAGIC, _FEATHER_1 = b"ARROW1", b"FEA1"
_CONTINUED = b"\xff\xff\xff\xff"
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_TAIL = 64 << 10
_BLOCK = np.dtype([("at", "<i8"), ("message", "<i4"), ("padding", "<i4"), ("body", "<i8")])
Fetch = Callable[[Sequence[tuple[Stat, Span]]], Sequence[bytes]]


class Footer(NamedTuple):
    """Where the parts of an IPC file or stream lie.

    Attributes:
        span: bytes of a file's footer, up to the end of the file; or bytes of a stream's schema.
        digest: hash of these bytes.
        dictionaries: int64[d, 3], for each dictionary: offset, bytes of its message, bytes of the
            buffers that follow.
        batches: int64[b, 3], the same for each record batch, in order.
        rows: int64[b], rows of each batch.
        codecs: names of the compressions used; empty if nothing is compressed.
        ids: (id, is delta) of each of a stream's dictionaries; a delta adds to its predecessor.
            None for a file, whose dictionaries all apply to every batch.
    """

    span: Span
    digest: bytes
    dictionaries: Int64s
    batches: Int64s
    rows: Int64s
    codecs: tuple[str, ...]
    ids: tuple[tuple[int, bool], ...] | None = None

    @property
    def is_stream(self) -> bool:
        return self.ids is not None

    def block(self, batch: int) -> Span:
        """The span of a record batch."""
        return _block_span(self.batches[batch])

    def message(self, batch: int) -> Span:
        """The span of what tells where the buffers of a record batch lie."""
        start, size, _ = self.batches[batch].tolist()
        return start, start + size

    def common(self) -> list[Span]:
        """The spans that are read once, before any batch: dictionaries, and footer or schema."""
        return sorted([*map(_block_span, self.dictionaries), self.span])

    def before(self, batch: int) -> list[Span]:
        """The spans of a stream that are decoded before a batch: schema and dictionaries."""
        start, _ = self.block(batch)
        spans: list[Span] = []
        replaced: set[int] = set()
        for block, (name, adds) in zip(
            self.dictionaries[::-1], (self.ids or ())[::-1], strict=True
        ):
            if block[0] < start and name not in replaced:
                spans.append(_block_span(block))
                if not adds:
                    replaced.add(name)
        return [self.span, *spans[::-1]]


def _block_span(block: Int64s) -> Span:
    start, message, body = block.tolist()
    return start, start + message + body


def footers(stats: Sequence[Stat], fetch: Fetch) -> list[Footer]:
    """The footer of each file. Reads all file ends at once, then long footers, then batch metadata.

    Args:
        stats: the files.
        fetch: reads spans of files.

    Raises:
        SourceError: a file is neither an Arrow IPC file nor a stream.
    """
    spans = [(max(0, stat.size - _TAIL), stat.size) for stat in stats]
    ends = list(fetch(list(zip(stats, spans, strict=True))))
    lengths = [_length(stat, end) for stat, end in zip(stats, ends, strict=True)]
    long = [i for i, end in enumerate(ends) if lengths[i] > len(end)]
    more = fetch([(stats[i], (stats[i].size - lengths[i], stats[i].size)) for i in long])
    for i, end in zip(long, more, strict=True):
        ends[i] = end

    def one(i: int) -> Footer:
        with parsing(stats[i].path):
            if lengths[i]:
                return _footer(stats[i], ends[i][-lengths[i] :], fetch)
            return _walked(stats[i], fetch)

    return at_once(one, range(len(stats)), far=any(is_url(stat.path) for stat in stats))


def _length(stat: Stat, end: bytes) -> int:
    # bytes of the footer, with its length and the magic after it; 0 if it may be a stream
    if end[-4:] == _FEATHER_1:
        raise unreadable(stat.path, "it is Feather version 1; version 2 is Arrow IPC")
    if end[-6:] != _MAGIC:
        return 0
    length = int.from_bytes(end[-10:-6], "little", signed=True) + 10
    if not 10 < length <= stat.size:
        raise unreadable(stat.path, f"its footer is said to have {length} bytes")
    return length


def _footer(stat: Stat, end: bytes, fetch: Fetch) -> Footer:
    start = stat.size - len(end)
    root = _Table.root(end)
    dictionaries, batches = (_checked(root.blocks(number), start) for number in (2, 3))
    messages = fetch([(stat, (at, at + message)) for at, message, _ in batches.tolist()])
    headers = [_message(message).part(2) for message in messages]
    return Footer((start, stat.size), digest(end), dictionaries, batches, *_facts(headers))


def _walked(stat: Stat, fetch: Fetch) -> Footer:
    """The parts of a stream. Walking takes a read for each message, unless they are small."""
    spans: list[Span] = []
    blocks: dict[int, list[list[int]]] = {_SCHEMA: [], _DICTIONARY: [], _BATCH: []}
    headers: list[_Table] = []
    ids: list[tuple[int, bool]] = []
    for block, message in _messages(stat, fetch):
        kind, header = message.int8(1), message.part(2)
        if (kind == _SCHEMA) == bool(blocks[_SCHEMA]) or kind not in blocks:
            raise ValueError(f"there is a message of kind {kind} at byte {block[0]}")
        blocks[kind].append(block)
        if kind == _SCHEMA:
            spans = [(block[0], sum(block))]
        elif kind == _DICTIONARY:
            ids.append((header.int64(0), bool(header.int8(2))))
        else:
            headers.append(header)
    if not spans:
        raise ValueError("it is no Arrow IPC file, and no stream: there is no schema")
    (first,) = fetch([(stat, spans[0])])
    dictionaries, batches = (
        np.array(blocks[kind], np.int64).reshape(-1, 3) for kind in (_DICTIONARY, _BATCH)
    )
    facts = _facts(headers)
    return Footer(spans[0], digest(first), dictionaries, batches, *facts, tuple(ids))


def _messages(stat: Stat, fetch: Fetch) -> Iterator[tuple[list[int], _Table]]:
    # for each message of a stream: [offset, bytes, bytes of its body], and the parsed message
    window = _Window(stat, fetch)
    at = 0
    while at < stat.size:
        head = window.read(at, at + 8)
        skip = 8 if head[:4] == _CONTINUED else 4
        length = int.from_bytes(head[skip - 4 : skip], "little", signed=True)
        if length == 0:
            return
        end = at + skip + length
        if len(head) < 8 or not 8 <= length <= stat.size or end > stat.size:
            cut = "it begins as an Arrow IPC file and does not end as one: it is cut short"
            kind = "it is no Arrow IPC file, and no stream or a damaged one"
            whole = window.read(0, 6) == _MAGIC
            raise ValueError(cut if whole else f"{kind}: no message at byte {at}")
        message = _message(window.read(at, end))
        body = message.int64(3)
        if body < 0 or end + body > stat.size:
            raise ValueError(
                f"its message at byte {at} should end at byte {end + body}, but the file ends at "
                f"byte {stat.size}: it is damaged or cut short"
            )
        yield [at, end - at, body], message
        at = end + body


class _Window:
    """A buffer around the current position in a file."""

    def __init__(self, stat: Stat, fetch: Fetch) -> None:
        self._stat, self._fetch = stat, fetch
        self._start, self._data = 0, b""

    def read(self, start: int, stop: int) -> bytes:
        if not self._start <= start <= stop <= self._start + len(self._data):
            end = min(self._stat.size, max(stop, start + _TAIL))
            self._start, (self._data,) = start, self._fetch([(self._stat, (start, end))])
        return self._data[start - self._start : stop - self._start]


def _facts(headers: list[_Table]) -> tuple[Int64s, tuple[str, ...]]:
    # rows of each record batch, and the codecs used
    rows = np.array([header.int64(0) for header in headers], np.int64)
    if len(rows) and rows.min() < 0:
        raise ValueError(f"a batch of {rows.min()} rows")
    return rows, tuple(sorted({_codec(header) for header in headers} - {""}))


def digest(footer: bytes) -> bytes:
    """A hash by which a footer's bytes are recognised."""
    return hashlib.blake2b(footer, digest_size=8).digest()


def _checked(blocks: Int64s, end: int) -> Int64s:
    start, message, body = blocks.T
    bad = (start < 8) | (message < 8) | (body < 0) | (start + message + body > end)
    if bad.any():
        raise ValueError(f"a block is said to start at byte {start[bad][0]}")
    return blocks


def _message(encapsulated: bytes) -> _Table:
    # the marker -1 (absent before format version 5), the length, then a flatbuffer
    return _Table.root(encapsulated[8 if encapsulated[:4] == _CONTINUED else 4 :])


def _codec(header: _Table) -> str:
    compression = header.table(3)
    if compression is None:
        return ""
    names = {0: "LZ4", 1: "ZSTD"}
    if (number := compression.int8(0)) not in names:
        raise ValueError(f"codec {number} is unknown")
    return names[number]


class _Table:
    """A table in a flatbuffer (flatbuffers.dev, "internals"). Its vtable locates the fields."""

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

    def part(self, number: int) -> _Table:
        """A field that is a table and must exist."""
        if (found := self.table(number)) is None:
            raise ValueError("a message without a header")
        return found

    def blocks(self, number: int) -> Int64s:
        """A field that is a vector of Block structs: int64[n, 3], offset, header and body bytes."""
        at = self._field(number)
        if at is None:
            return np.zeros((0, 3), np.int64)
        at += _int(self._data, "<I", at)
        count = _int(self._data, "<I", at)
        # raises ValueError if it is too short
        found = np.frombuffer(self._data, _BLOCK, count, at + 4)
        return np.stack([found[name].astype(np.int64) for name in ("at", "message", "body")], 1)


def _int(data: bytes, kind: str, at: int) -> int:
    if at < 0:  # struct would count from the end
        raise ValueError(f"an offset of {at}")
    return struct.unpack_from(kind, data, at)[0]
