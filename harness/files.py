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
    """What `write_json` wrote, or None where there is no such file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


class LineLog:
    """An append-only file of JSON lines; each is in the kernel's hands when `append` returns.

    Opening it cuts off a last line that a killed writer left without its end, so that the next
    line starts where a line should. One writer at a time: the caller holds a lock.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115
        self._file.truncate(_whole(path.read_bytes()))

    def append(self, value: dict[str, Any]) -> None:
        """Add one line, in one write."""
        self._file.write(json.dumps(value, allow_nan=False).encode() + b"\n")

    def sync(self) -> None:
        """Bring the lines to the disk: they then outlive the machine, not only the process."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a `LineLog`, [] where there is none; a torn last line is left out.

    Raises:
        DamageError: a line before the last is not JSON.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = data[: _whole(data)].splitlines()
    return [_parse(path, number, line) for number, line in enumerate(lines, 1)]


def _whole(data: bytes) -> int:
    return data.rfind(b"\n") + 1


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError as e:
        raise DamageError(
            f"line {number} of {path} is not JSON: {line[:80]!r}. Repair or remove that line."
        ) from e


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
