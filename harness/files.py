"""Writing files so that a kill at any moment leaves nothing half done."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import BusyError, DamageError
from pipeline.debug.journal import lines
from pipeline.debug.journal.lines import LineLog as LineLog
from pipeline.errors import JournalError
from pipeline.sources.storage.atomic import written_whole


def write_json(path: Path, value: Any) -> None:
    """Write plain data as JSON, atomically and durably."""
    with written_whole(path, durable=True) as f:
        f.write((json.dumps(value, indent=1) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is no such file.

    Raises:
        DamageError: it is no JSON object.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as e:
        raise DamageError(f"{path} is not JSON: {e}. Restore it, or remove it.") from e
    if not isinstance(found, dict):
        raise DamageError(f"{path} holds no JSON object. Restore it, or remove it.")
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a `LineLog`; [] if there is none. A torn last line is ignored.

    Raises:
        DamageError: a line before the last is not a JSON object.
    """
    try:
        return lines.read_lines(path)
    except JournalError as e:
        raise DamageError(str(e)) from e


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock file `path`. The lock is released when its holder ends, in whatever way.

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
