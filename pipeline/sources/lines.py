"""Where records live: text files, each line a record, as it stands or as JSON."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import RecordError
from pipeline.sources.framed import FramedSource, Located
from pipeline.sources.storage.arrays import Arrays
from pipeline.sources.storage.files import Paths
from pipeline.sources.storage.gather import pieces, refuse_packed
from pipeline.sources.storage.side_index import indexed
from pipeline.sources.storage.storage import Stat, Storage

_BOM = b"\xef\xbb\xbf"


class _Lines(FramedSource):
    """What lines of text and of JSON share."""

    def __init__(self, paths: Paths, blank: bool, storage: Storage | None) -> None:
        kind = "lines 1" if blank else "lines not empty 1"
        super().__init__(paths, kind, functools.partial(_load, blank, kind), storage)

    def _decoded(self, indices: Int64s, decode: Callable[[bytes], Any], remedy: str) -> list[Any]:
        at = self._locate(indices)
        found: list[Any] = []
        for i, data in enumerate(self._fetch(at)):
            try:
                found.append(decode(data))
            except ValueError as e:  # which UnicodeDecodeError and JSONDecodeError are
                raise self._bad_line(at, i, e, remedy) from e
            except RecursionError as e:
                raise self._bad_line(at, i, "it is nested too deeply", remedy) from e
        return found

    def _bad_line(self, at: Located, i: int, why: object, remedy: str) -> RecordError:
        numbers = self._index(int(at.file[i]))["line"]
        local = int(at.local[i])
        line = int(numbers[local]) if len(numbers) else local
        return self._bad(at, i, f"{why}, in line {line + 1}{remedy}")


class LinesSource(_Lines):
    """Lines of UTF-8 text as strings, without what ends them; files end to end in the order given.

    Lines end with a newline or CR LF, the last one with or without; an empty line is a record. A
    byte order mark at a file's start is left out. Where lines begin is found once, and kept in the
    cache folder.

    Args:
        paths: a path, a glob, or a list of these; globs are sorted.
        storage: how URLs are reached.

    Raises:
        SourceError: a file is missing or compressed.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
    >>> _ = path.write_text("to\\nbe\\n\\nor not")
    >>> LinesSource(path).read(np.array([3, 0, 2]))
    ['or not', 'to', '']
    """

    def __init__(self, paths: Paths, *, storage: Storage | None = None) -> None:
        super().__init__(paths, True, storage)

    def read(self, indices: Int64s) -> list[str]:
        """Lines by index, in the order asked, repeats included.

        Raises:
            PositionError: an index below 0 or past the end.
            RecordError: a line is not UTF-8; the others stay readable.
            SourceError: a file was removed, cut or replaced.
        """
        return self._decoded(indices, _text, "")

    def fingerprint(self) -> str:
        """Hex digest of base names, sizes, counts and ends; directories do not enter."""
        return self._files.fingerprint("lines")

    def layout(self) -> list[dict[str, Any]]:
        """Facts of each file: path, bytes, records, smallest, largest, codec."""
        return self._layout("utf-8", scanned=True)


class JsonLinesSource(_Lines):
    """Lines of JSON, each decoded when read; empty lines are no records.

    Args:
        paths: a path, a glob, or a list of these; globs are sorted.
        storage: how URLs are reached.

    Raises:
        SourceError: a file is missing or compressed.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.jsonl"
    >>> _ = path.write_text('{"id": 1}\\n\\n{"id": 2}\\n')
    >>> JsonLinesSource(path).read(np.array([1, 0]))
    [{'id': 2}, {'id': 1}]
    """

    def __init__(self, paths: Paths, *, storage: Storage | None = None) -> None:
        super().__init__(paths, False, storage)

    def read(self, indices: Int64s) -> list[Any]:
        """Values by index, in the order asked, repeats included.

        Raises:
            PositionError: an index below 0 or past the end.
            RecordError: a line is not UTF-8 or not JSON; the others stay readable.
            SourceError: a file was removed, cut or replaced.
        """
        remedy = " (a value must stand in one line: jq -c . FILE, of an array jq -c '.[]' FILE)"
        return self._decoded(indices, _json, remedy)

    def fingerprint(self) -> str:
        """Hex digest of base names, sizes, counts and ends; directories do not enter."""
        return self._files.fingerprint("json lines")

    def layout(self) -> list[dict[str, Any]]:
        """Facts of each file: path, bytes, records, smallest, largest, codec."""
        return self._layout("json", scanned=True)


def _text(data: bytes) -> str:
    return data.decode("utf-8")


def _json(data: bytes) -> Any:
    return json.loads(data.decode("utf-8"))


def _load(blank: bool, kind: str, stat: Stat, storage: Storage) -> Arrays:
    return indexed(stat, storage, kind, functools.partial(_scan, blank))


def _scan(blank: bool, stat: Stat, storage: Storage) -> Arrays:
    """Start and stop of each line, without newline or CR; its number, if some are left out."""
    stops, returns, offset, before = [np.zeros(0, np.int64)], [np.zeros(0, bool)], 0, 0
    first = 0
    for piece in pieces(stat, storage):
        data = np.frombuffer(piece, np.uint8)
        if offset == 0:
            refuse_packed(stat.path, piece[:8])
            first = len(_BOM) if piece.startswith(_BOM) else 0
        ends = np.flatnonzero(data == ord("\n"))
        previous = np.where(ends > 0, data[ends - 1], before)
        stops.append(ends + offset)
        returns.append(previous == ord("\r"))
        offset, before = offset + len(data), int(data[-1])
    stop, cr = np.concatenate(stops), np.concatenate(returns)
    start = np.concatenate([[first], stop + 1])
    if start[-1] < offset:  # no newline at the end
        stop, cr = np.append(stop, offset), np.append(cr, False)
    start = start[: len(stop)]
    stop = stop - cr
    line = np.arange(len(stop)) if blank else np.flatnonzero(stop > start)
    left_out = len(line) < len(stop)
    return {"start": start[line], "stop": stop[line], "line": line if left_out else line[:0]}
