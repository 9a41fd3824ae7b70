"""Decoding chunks, many at a time: one bytes object, and where each record lies in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.block import Int64s
from pipeline.sources.riegeli import varints
from pipeline.sources.riegeli.codecs import NAMES, unpack
from pipeline.sources.riegeli.varints import Bytes

BLOCK = 1 << 16  # a block header stands at every multiple of this, even inside of a chunk
_BLOCK_HEADER = 24
HEADER = 40
INDEX_LIMIT = 1 << 32  # bytes of the list of chunks, enough for a hundred million of them
SIMPLE, _TRANSPOSED = ord("r"), ord("t")
_KNOWN = np.isin(np.arange(256), list(NAMES))


class DamagedError(Exception):
    """Chunk number `which` of those given contradicts itself."""

    def __init__(self, which: int, reason: str) -> None:
        super().__init__(reason)
        self.which = which


class UnfamiliarError(Exception):
    """Chunk number `which` of those given uses a feature that only the native reader supports."""

    def __init__(self, which: int, reason: str) -> None:
        super().__init__(reason)
        self.which = which


class Chunks(NamedTuple):
    """Chunks without block headers: chunk i is bytes `[starts[i], stops[i])` of `data`."""

    data: bytes
    starts: Int64s
    stops: Int64s


class Records(NamedTuple):
    """Decoded records. Record j is `data[starts[j] : stops[j]]`.

    Attributes:
        data: the bytes of all records.
        starts, stops: int64[records].
        first: int64[chunks + 1]; chunk i held records `[first[i], first[i + 1])`.
    """

    data: bytes
    starts: Int64s
    stops: Int64s
    first: Int64s


def cut(spans: list[bytes], begins: Int64s, which: Int64s, starts: Int64s, stops: Int64s) -> Chunks:
    """Take chunks out of spans of files, without block headers.

    Args:
        spans: bytes of files, including block headers.
        begins: int64[spans], where each span begins in its file.
        which: int64[chunks], the span that holds each chunk.
        starts, stops: int64[chunks], where each chunk lies in its file.
    """
    lengths = np.array([len(span) for span in spans], np.int64)
    bare: list[bytes] = spans.copy()
    for i in np.flatnonzero(-begins % BLOCK < lengths).tolist():
        bare[i] = _stripped(spans[i], -int(begins[i]) % BLOCK)
        lengths[i] = len(bare[i])
    base = (np.cumsum(lengths) - lengths - begins)[which]
    blocks = -(-begins // BLOCK)[which]
    return Chunks(
        b"".join(bare),
        base + starts - _BLOCK_HEADER * (-(-starts // BLOCK) - blocks),
        base + stops - _BLOCK_HEADER * (-(-stops // BLOCK) - blocks),
    )


def _stripped(span: bytes, first: int) -> bytes:
    view = memoryview(span)
    rest = [view[i + _BLOCK_HEADER : i + BLOCK] for i in range(first, len(span), BLOCK)]
    return b"".join([view[:first], *rest])


def decode(chunks: Chunks, counts: Int64s | None, limit: int = INDEX_LIMIT) -> Records:
    """The records of simple (not transposed) chunks. Sizes are checked, hashes are not.

    Args:
        chunks: each begins with its header; bytes after its data are ignored.
        counts: int64[chunks], how many records each must hold; None if unknown.
        limit: decoded bytes of one chunk at most.

    Raises:
        DamagedError: a chunk contradicts itself or `counts`.
        UnfamiliarError: a chunk is transposed, or its kind or codec is unknown.
    """
    data = np.frombuffer(chunks.data, np.uint8)
    _need(chunks.stops - chunks.starts >= HEADER, "it is shorter than a header")
    heads = data[chunks.starts[:, None] + np.arange(HEADER)].view("<u8")
    kinds, numbers = heads[:, 3] & np.uint64(0xFF), (heads[:, 3] >> np.uint64(8)).astype(np.int64)
    sizes, decoded = heads[:, 1].astype(np.int64), heads[:, 4].astype(np.int64)
    begins = chunks.starts + HEADER
    too_large = f"it would unpack to more than record_limit={limit} bytes"
    _need((decoded >= 0) & (decoded <= limit), too_large)
    _need((sizes > 0) & (sizes <= chunks.stops - begins), "its size is wrong")
    _familiar(kinds == SIMPLE, kinds, _TRANSPOSED, "chunk")
    if counts is not None:
        _need(numbers == counts, "it holds another number of records")
    return _records(chunks.data, data, begins, begins + sizes, numbers, decoded)


def _records(
    raw: bytes, data: Bytes, begins: Int64s, ends: Int64s, numbers: Int64s, decoded: Int64s
) -> Records:
    """The records of chunks whose headers were checked.

    Args:
        raw, data: the chunks' bytes, as bytes and as uint8 array.
        begins, ends: int64[chunks], where the data of each lie.
        numbers: int64[chunks], records of each.
        decoded: int64[chunks], decoded bytes of each.
    """
    codecs = data[begins]
    _familiar(_KNOWN[codecs], codecs, None, "codec")
    packed = codecs != 0
    length, at = varints.at(data, begins + 1)
    values = at + length
    _need((length >= 0) & (values <= ends), "the sizes of its records do not fit")
    value_size, value_at = _unpacked_sizes(data, packed, values, ends)
    _need(value_size == decoded, "the size of its records is wrong")
    flat, starts = unpack(raw, codecs, value_at, ends, decoded, _damaged)
    first = np.concatenate([[0], np.cumsum(numbers)])
    if (numbers == 1).all():
        return Records(flat, starts, starts + decoded, first)
    list_size, list_at = _unpacked_sizes(data, packed, at, values)
    _need((list_size > 0) & (list_size <= 9 * numbers), "the sizes of its records do not fit")
    lists, list_starts = unpack(raw, codecs, list_at, values, list_size, _damaged)
    sizes = _sizes(lists, list_starts, list_size, numbers, decoded)
    within = np.cumsum(sizes) - sizes
    chunk = np.repeat(np.arange(len(numbers)), numbers)
    before = np.concatenate([within, [sizes.sum()]])[first[:-1]]
    begin = starts[chunk] + within - before[chunk]
    return Records(flat, begin, begin + sizes, first)


def _unpacked_sizes(
    data: Bytes, packed: Bytes, begins: Int64s, ends: Int64s
) -> tuple[Int64s, Int64s]:
    """Decoded size of each part, and where its bytes begin. A compressed part states its size."""
    if not packed.any():
        return ends - begins, begins
    size, at = varints.at(data, begins)
    _need(~packed | ((size >= 0) & (at <= ends)), "a size in it does not end")
    return np.where(packed, size, ends - begins), np.where(packed, at, begins)


def _sizes(
    lists: bytes, starts: Int64s, lengths: Int64s, numbers: Int64s, decoded: Int64s
) -> Int64s:
    """int64[records], the size of each record, from one list per chunk; no list is empty."""
    stops = starts + lengths
    flat = np.frombuffer(lists, np.uint8)
    if (starts[1:] != stops[:-1]).any() or starts[0] or stops[-1] != len(flat):
        spans = zip(starts.tolist(), stops.tolist(), strict=True)
        flat = np.concatenate([flat[a:b] for a, b in spans])
        stops = np.cumsum(lengths)
        starts = stops - lengths
    # each list has as many final bytes as records, and ends in one: so no number spans two lists
    ends = np.concatenate([[0], np.cumsum(flat < 0x80)])
    good = (ends[stops] - ends[starts] == numbers) & (flat[stops - 1] < 0x80)
    _need(good, "the sizes of its records are too few or too many")
    try:
        sizes = varints.all_of(flat)
    except ValueError as e:
        raise DamagedError(0, f"the sizes of its records: {e}") from e
    sums = np.add.reduceat(sizes, ends[starts])
    _need(sums == decoded, "the sizes of its records do not add up")
    return sizes


def _need(good: np.ndarray, reason: str) -> None:
    if not good.all():
        raise DamagedError(int(np.argmin(good)), reason)


def _damaged(which: int, reason: str) -> DamagedError:
    return DamagedError(which, reason)


def _familiar(good: np.ndarray, kinds: np.ndarray, known: int | None, what: str) -> None:
    if not good.all():
        i = int(np.argmin(good))
        if kinds[i] == known:
            raise UnfamiliarError(i, "it is transposed")
        raise UnfamiliarError(i, f"{what} of kind {int(kinds[i]):#04x}")
