"""How files are written so that a kill at any moment leaves nothing half done."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import BusyError, DamageError
from pipeline.sources.storage.atomic import written_whole


def write_json(path: Path, value: Any) -> None:
    """Write plain data as JSON, atomically and durably."""
    with written_whole(path, durable=True) as f:
        f.write((json.dumps(value, indent=1) + "\n").encode())


def read_json(path: Path) -> Any | None:
    """What `write_json` wrote, or None where there is no such file.

    Raises:
        DamageError: it is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as e:
        raise DamageError(f"{path} is not JSON: {e}. Restore it, or remove it.") from e


class LineLog:
    """An append-only file of JSON lines; each is in the kernel's hands when `append` returns.

    Opening it cuts off a last line that a killed writer left without its end, so that the next
    line starts where a line should. One writer at a time: the caller holds a lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115
        self._file.truncate(_whole(path.read_bytes()))

    def append(self, value: dict[str, Any]) -> None:
        """Add one line, in one write.

        Raises:
            OSError: not all of it could be written, as on a full disk; what was is taken back, so
                that the next line starts where a line should.
        """
        line = json.dumps(value, allow_nan=False).encode() + b"\n"
        written = self._file.write(line)
        if written != len(line):
            end = os.fstat(self._file.fileno()).st_size
            self._file.truncate(end - (written or 0))
            raise OSError(
                f"only {written} of {len(line)} bytes could be added to {self._path}. Make room on "
                "its disk: the line was taken back."
            )

    def sync(self) -> None:
        """Bring the lines to the disk: they then outlive the machine, not only the process."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a `LineLog`, [] where there is none; a torn last line is left out.

    Raises:
        DamageError: a line before the last is not a JSON object.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = data[: _whole(data)].split(b"\n")[:-1]
    return [_parse(path, number, line) for number, line in enumerate(lines, 1)]


def _whole(data: bytes) -> int:
    return data.rfind(b"\n") + 1


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise _damaged(path, number, line) from e
    if not isinstance(found, dict):
        raise _damaged(path, number, line)
    return found


def _damaged(path: Path, number: int, line: bytes) -> DamageError:
    # a line torn in the middle was written by no LineLog: a copy, an editor or the disk did it
    return DamageError(
        f"line {number} of {path} is torn or no JSON object: {line[:80]!r}. Take it back from a "
        f"copy; or remove it, and what it said is lost: sed -i {number}d {path}"
    )


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock file `path`; it frees itself when its holder dies, however it dies.

    Raises:
        BusyError: another process holds it, and wait is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as e:
            raise BusyError(
                f"another process works in {path.parent}. "
                "Wait until it ends, or give this one a directory of its own."
            ) from e
        yield
