"""Files of JSON lines that only grow, and stay whole when their writer is killed at any moment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pipeline.errors import JournalError

_LOOK = 1 << 16  # bytes at the end in which the last line's end is looked for first


class LineLog:
    """An append-only file of JSON lines; each is in the kernel's hands when `append` returns.

    Opening it cuts off a last line that a killed writer left without its end, so that the next
    line starts where a line should. One writer at a time: the caller holds a lock.

    Attributes:
        end: bytes of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115
        self.end = _whole_lines(self._file)
        self._file.truncate(self.end)

    def append(self, value: dict[str, Any]) -> None:
        """Add one line, in one write.

        Raises:
            OSError: not all of it could be written, as on a full disk; what was is taken back, so
                that the next line starts where a line should.
        """
        line = json.dumps(value, allow_nan=False).encode() + b"\n"
        written = self._file.write(line)
        if written != len(line):
            self._file.truncate(self.end)
            raise OSError(
                f"only {written} of {len(line)} bytes could be added to {self._path}. Make room on "
                "its disk: the line was taken back."
            )
        self.end += len(line)

    def fileno(self) -> int:
        return self._file.fileno()

    def sync(self) -> None:
        """Bring the lines to the disk: they then outlive the machine, not only the process."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path, start: int = 0) -> list[dict[str, Any]]:
    """The whole lines of a `LineLog` from a byte on; [] where there is none.

    A torn last line is left out.

    Raises:
        JournalError: a line before the last is not a JSON object.
    """
    try:
        with open(path, "rb") as f:
            f.seek(start)
            data = f.read()
    except FileNotFoundError:
        return []
    lines = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]
    return [parsed(path, line, lambda i=i: i) for i, line in enumerate(lines, 1)]


def parsed(path: Path, line: bytes, number: Any) -> dict[str, Any]:
    """One line's object.

    Args:
        path: of the file, for the error.
        line: without its end.
        number: gives the line's number, from 1.

    Raises:
        JournalError: it is not a JSON object.
    """
    try:
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as e:
        # a line torn in the middle was written by no LineLog: a copy, an editor or the disk did it
        raise JournalError(
            f"line {number()} of {path} is torn or no JSON object: {line[:80]!r}. Take it back "
            f"from a copy; or remove it, and what it said is lost: sed -i {number()}d {path}"
        ) from e
    return found


def _whole_lines(file: Any) -> int:
    # bytes up to the end of the last whole line
    end = look = os.fstat(file.fileno()).st_size
    while look > 0:
        start = max(0, look - _LOOK)
        file.seek(start)
        found = file.read(look - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        look = start
    return min(end, 0)
