"""The index of a file: where its chunks lie. Read from its end, in one or two requests."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pipeline.block import Int64s
from pipeline.sources.riegeli import varints
from pipeline.sources.riegeli.chunks import (
    BLOCK,
    DamagedError,
    Records,
    UnfamiliarError,
    cut,
    decode,
)
from pipeline.sources.storage.storage import Stat, Storage

TAIL = 4 * BLOCK  # holds the postscript and the index of some 50,000 chunks
_RUN = 256 << 10  # bytes for which a request of its own is worth while
_MAGIC = 0x71930E704FDAE05E


class Index(NamedTuple):
    """What the end of a file says about its chunks.

    Attributes:
        records: how many the file holds.
        group: records in each chunk; the last may hold fewer.
        offsets: int64[chunks + 1], where each chunk begins, and where the last one ends.
        decoded: decoded bytes of all records.
        largest: decoded bytes of the largest chunk.
        options: the options of its writer, "" if not stored.
    """

    records: int
    group: int
    offsets: Int64s
    decoded: int
    largest: int
    options: str

    @property
    def transposed(self) -> bool:
        """Whether the writer's options include transposing."""
        return "transpose:true" in self.options.split(",")

    @property
    def run(self) -> int:
        """How many records to read together: one chunk, or several of 256 KiB at most in all."""
        chunks = max(1, len(self.offsets) - 1)
        each = max(1, int(self.offsets[-1] - self.offsets[0]) // chunks)
        return self.group * (1 << max(0, (_RUN // each).bit_length() - 1))

    def place(self, record: int) -> str:
        """A description of which bytes of the file hold a record, for errors."""
        chunk = record // self.group
        start, stop = self.offsets[chunk : chunk + 2].tolist()
        count = min(self.group, self.records - chunk * self.group)
        group = "" if self.group == 1 else f"its group of {count} records, "
        return f"{group}bytes {start} to {stop}"

    def to_bytes(self) -> bytes:
        """The index as bytes, for the cache."""
        facts = np.array([self.records, self.group, self.decoded, self.largest], np.int64)
        options = np.frombuffer(self.options.encode(), np.uint8)
        with io.BytesIO() as out:
            np.savez(out, facts=facts, offsets=self.offsets, options=options)
            return out.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> Index | None:
        """The index that `to_bytes` wrote; None if it is damaged."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as kept:
                records, group, decoded, largest = kept["facts"].tolist()
                options = kept["options"].tobytes().decode()
                return Index(records, group, kept["offsets"], decoded, largest, options)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None


class NoIndexError(Exception):
    """The end of a file is not the end of an ArrayRecord file."""


class UnknownIndexError(Exception):
    """The file is an ArrayRecord file with a layout that only the native reader supports."""


IndexAnswer = Index | NoIndexError | UnknownIndexError


def read_indexes(stats: Sequence[Stat], storage: Storage) -> list[IndexAnswer]:
    """The index of each file, or the error that explains why it has none.

    All file ends are requested concurrently.

    Raises:
        OSError: a file cannot be read.
    """
    begins = [max(0, s.size - TAIL) for s in stats]
    ends = storage.read([s.range(b, s.size) for s, b in zip(stats, begins, strict=True)])
    footers = [_or_why(_footer_offset, s.size, e) for s, e in zip(stats, ends, strict=True)]
    missing = {
        i: stats[i].range(offset, begins[i])
        for i, offset in enumerate(footers)
        if isinstance(offset, int) and offset < begins[i]
    }
    heads = dict(zip(missing, storage.read(list(missing.values())), strict=True))
    found: list[IndexAnswer] = []
    for i, offset in enumerate(footers):
        if isinstance(offset, int):
            rest = ends[i][max(0, offset - begins[i]) : len(ends[i]) - BLOCK]
            offset = _or_why(_index, offset, heads.get(i, b"") + rest)
        found.append(offset)
    return found


Result = TypeVar("Result")


def _or_why(call: Callable[..., Result], *args: Any) -> Result | NoIndexError | UnknownIndexError:
    try:
        return call(*args)
    except UnfamiliarError as e:
        return UnknownIndexError(str(e))
    except (DamagedError, ValueError) as e:
        return NoIndexError(f"its index is damaged: {e}")
    except (NoIndexError, UnknownIndexError) as e:
        return e


def _footer_offset(size: int, end: bytes) -> int:
    if size % BLOCK or size < 2 * BLOCK:
        raise NoIndexError("no valid end of an ArrayRecord file, whose size is a multiple of 65536")
    try:
        fields = varints.fields(_first(_decode(end[-BLOCK:], size - BLOCK)))
    except (DamagedError, UnfamiliarError, ValueError) as e:
        raise NoIndexError("no valid end of an ArrayRecord file") from e
    offset = fields.get(1)
    if fields.get(2) != _MAGIC or not isinstance(offset, int) or not 0 < offset < size - BLOCK:
        raise NoIndexError("no valid end of an ArrayRecord file")
    return offset


def _index(offset: int, footer: bytes) -> Index:
    found = _decode(footer, offset)
    about = varints.fields(_first(found)).get(1)
    facts = varints.fields(about) if isinstance(about, bytes) else {}
    if facts.get(1) != 1:
        raise UnknownIndexError(f"version {facts.get(1)} of the format is unknown")
    records, chunks = int(facts.get(3, 0)), int(facts.get(2, 0))
    rows = _rows(found)
    if len(rows) != chunks or (rows[:, 2].sum() if chunks else 0) != records:
        raise ValueError(f"{len(rows)} chunks listed, {chunks} and {records} records promised")
    offsets = np.concatenate([rows[:, 0], [offset]])
    group = int(rows[0, 2]) if chunks else 1
    if offsets[0] < 0 or (np.diff(offsets) < 1).any():
        raise ValueError("its chunks do not follow one another")
    if chunks and (group < 1 or (rows[:-1, 2] != group).any() or not 1 <= rows[-1, 2] <= group):
        raise UnknownIndexError("its chunks hold different numbers of records")
    options = facts.get(4, b"")
    text = options.decode("utf-8", "replace") if isinstance(options, bytes) else ""
    decoded, largest = int(rows[:, 1].sum()), int(rows[:, 1].max(initial=0))
    return Index(records, group, offsets, decoded, largest, text)


def _rows(found: Records) -> Int64s:
    """int64[chunks, 3]: offset, decoded bytes and number of records of each chunk."""
    data, at = np.frombuffer(found.data, np.uint8), found.starts[1:]
    rows = np.empty((len(at), 3), np.int64)
    for field in range(3):
        if (data.take(at, mode="clip") != (field + 1) << 3).any():
            raise UnknownIndexError("its list of chunks has other fields")
        rows[:, field], at = varints.at(data, at + 1)
    if (at != found.stops[1:]).any():
        raise UnknownIndexError("its list of chunks has other fields")
    return rows


def _decode(data: bytes, begin: int) -> Records:
    where = np.array([begin], np.int64)
    chunks = cut([data], where, np.zeros(1, np.int64), where, where + len(data))
    return decode(chunks, None)


def _first(found: Records) -> bytes:
    if not len(found.starts):
        raise NoIndexError("no valid end of an ArrayRecord file")
    return found.data[found.starts[0] : found.stops[0]]
