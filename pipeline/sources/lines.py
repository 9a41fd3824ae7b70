"""Text files whose lines are records, as strings or as JSON; or the elements of a JSON array."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import RecordError
from pipeline.sources.complaints import unreadable
from pipeline.sources.framed import FramedSource, RecordSpans
from pipeline.sources.json_array import element_spans
from pipeline.sources.storage.arrays import Arrays
from pipeline.sources.storage.files import Paths
from pipeline.sources.storage.gather import pieces, refuse_packed
from pipeline.sources.storage.location import named
from pipeline.sources.storage.side_index import indexed
from pipeline.sources.storage.storage import Stat, Storage

_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # UTF-32 begins with one of these, or with two zero bytes
_INK = np.ones(256, np.bool_)  # which bytes are not white space of JSON
_INK[[*b" \t\r\n"]] = False


class _Lines(FramedSource):
    """What sources of text lines and of JSON lines share.

    Args:
        paths, storage: as for `LinesSource`.
        kind: the key under which indexes are kept.
        scan: finds the records of a file.
        identity: the format, for the fingerprint.
    """

    _scanned = True

    def __init__(
        self,
        paths: Paths,
        kind: str,
        scan: Callable[[Stat, Storage], Arrays],
        storage: Storage | None,
        identity: str,
    ) -> None:
        load = functools.partial(indexed, kind=kind, build=scan)
        super().__init__(paths, kind, load, storage, (identity,))

    def _decoded(self, indices: Int64s, decode: Callable[[bytes], Any], remedy: str) -> list[Any]:
        at = self._locate(indices)
        found: list[Any] = []
        for i, data in enumerate(self._fetch(at)):
            try:
                found.append(decode(data))
            except ValueError as e:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
                raise self._bad_line(at, i, e, remedy) from e
            except RecursionError as e:
                raise self._bad_line(at, i, "it is nested too deeply", remedy) from e
        return found

    def _bad_line(self, at: RecordSpans, i: int, why: object, remedy: str) -> RecordError:
        numbers = self._index(int(at.file[i]))["line"]
        local = int(at.local[i])
        line = int(numbers[local]) if len(numbers) else local
        return self._bad(at, i, f"{why}, in line {line + 1}{remedy}")


class LinesSource(_Lines):
    """Lines of UTF-8 text as strings, without line ends; files end to end in the order given.

    A line ends with a newline or CR LF; the last line of a file may lack it. An empty line is a
    record. A byte order mark at the start of a file is dropped. Where lines begin is found once and
    kept in the cache folder.

    Args:
        paths: a path, a glob, or a list of these; globs are sorted.
        storage: how URLs are read.

    Raises:
        SourceError: a file is missing, compressed or UTF-16.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
    >>> _ = path.write_text("to\\nbe\\n\\nor not")
    >>> LinesSource(path).read(np.array([3, 0, 2]))
    ['or not', 'to', '']
    """

    _codec = "utf-8"

    def __init__(self, paths: Paths, *, storage: Storage | None = None) -> None:
        super().__init__(paths, "lines 1", _every_line, storage, "lines")

    def read(self, indices: Int64s) -> list[str]:
        """Lines by index, in the order given, repeats included.

        Raises:
            PositionError: an index is negative or beyond the end.
            RecordError: a line is not UTF-8; the others stay readable.
            SourceError: a file was removed, truncated or replaced.
        """
        return self._decoded(indices, _text, "")


class JsonLinesSource(_Lines):
    """JSON values, each parsed when read: one per line, or the elements of a `.json` file's array.

    Blank lines are not records. A file named `.json` that is a single array, on one line or many,
    has a record for each element; to find them it is parsed once as a whole.

    Args:
        paths: a path, a glob, or a list of these; globs are sorted.
        storage: how URLs are read.

    Raises:
        SourceError: a file is missing, compressed or UTF-16, or its array is damaged.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.jsonl"
    >>> _ = path.write_text('{"id": 1}\\n\\n{"id": 2}\\n')
    >>> JsonLinesSource(path).read(np.array([1, 0]))
    [{'id': 2}, {'id': 1}]
    """

    _codec = "json"

    def __init__(self, paths: Paths, *, storage: Storage | None = None) -> None:
        super().__init__(paths, "json records 1", _json_records, storage, "json lines")

    def read(self, indices: Int64s) -> list[Any]:
        """Values by index, in the order given, repeats included.

        Raises:
            PositionError: an index is negative or beyond the end.
            RecordError: a line is not UTF-8 or not JSON; the others stay readable.
            SourceError: a file was removed, truncated or replaced.
        """
        remedy = " (a value must stand in one line: jq -c . FILE, of an array jq -c '.[]' FILE)"
        return self._decoded(indices, _json, remedy)


def _text(data: bytes) -> str:
    return data.decode("utf-8")


def _json(data: bytes) -> Any:
    return json.loads(data.decode("utf-8"))


def _every_line(stat: Stat, storage: Storage) -> Arrays:
    return _lines(stat, storage, blank=True)


def _json_records(stat: Stat, storage: Storage) -> Arrays:
    if named(stat.path).lower().endswith(".json") and stat.size:
        found = element_spans(stat, storage)
        if found is not None:
            return found
    return _lines(stat, storage, blank=False)


def _lines(stat: Stat, storage: Storage, *, blank: bool) -> Arrays:
    """Start and stop of each line, without its end; and its number, if some lines are left out.

    Args:
        stat: the file.
        storage: how it is read.
        blank: whether lines of only white space count.
    """
    stops, returns, inks = [np.zeros(0, np.int64)], [np.zeros(0, bool)], [np.zeros(0, np.int64)]
    offset = before = ink = first = 0
    for piece in pieces(stat, storage):
        data = np.frombuffer(piece, np.uint8)
        if offset == 0:
            _refuse(stat.path, piece[:8])
            first = len(_BOM) if piece.startswith(_BOM) else 0
        ends = np.flatnonzero(data == ord("\n"))
        previous = np.where(ends > 0, data[ends - 1], before)
        stops.append(ends + offset)
        returns.append(previous == ord("\r"))
        if not blank:
            counts = np.cumsum(_INK[data])
            inks.append(ink + counts[ends])
            ink += int(counts[-1])
        offset, before = offset + len(data), int(data[-1])
    stop, cr, inked = np.concatenate(stops), np.concatenate(returns), np.concatenate(inks)
    start = np.concatenate([[first], stop + 1])
    if start[-1] < offset:  # no newline at the end
        stop, cr, inked = np.append(stop, offset), np.append(cr, False), np.append(inked, ink)
    start = start[: len(stop)]
    stop = stop - cr
    if blank:
        return {"start": start, "stop": stop, "line": stop[:0]}
    line = np.flatnonzero(np.diff(inked, prepend=first))  # a byte order mark does not count
    left_out = len(line) < len(stop)
    return {"start": start[line], "stop": stop[line], "line": line if left_out else line[:0]}


def _refuse(path: str, head: bytes) -> None:
    refuse_packed(path, head)
    if head.startswith((*_UTF_16, b"\0\0\xfe\xff")):
        raise unreadable(path, "it is UTF-16 or UTF-32. Make it UTF-8: iconv -f UTF-16 -t UTF-8")
