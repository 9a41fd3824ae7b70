"""Whether the files of a checkpoint hold the bits that were written: a CRC-32 of each of them.

The digests of `leaves` prove the arrays; this proves the rest, the loader's state and metadata
among it, and bits of array files that no decoder looks at. Left out is what Orbax writes last: the
time of the commit, and a file that says that there was one.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FILE = "files.json"
METADATA = "_CHECKPOINT_METADATA"
_LATE = (FILE, "commit_success.txt")
_TIME = re.compile(rb'(?<="commit_timestamp_nsecs": )(null|\d+)')
_PATIENCE = 60  # seconds
_PIECE = 1 << 20  # bytes read at a time


def await_metadata(folder: Path, step: int | None) -> None:
    """Wait until Orbax has written the metadata of a step, which a thread of its own does late.

    Raises:
        TimeoutError: it has not within a minute.
    """
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError, ValueError):  # half of it is no JSON
            told = json.loads((folder / METADATA).read_bytes()).get("custom_metadata") or {}
            if told.get("step") == step:
                return
        time.sleep(0.005)
    raise TimeoutError(f"{folder / METADATA} was not written whole within {_PATIENCE} seconds")


def seal(folder: Path) -> None:
    """Note size and CRC-32 of every file beneath a folder, in its `files.json`."""
    names = _found(folder)
    with ThreadPoolExecutor(8) as threads:
        checks = threads.map(lambda name: _check(folder / name), names)
        told = dict(zip(names, checks, strict=True))
    (folder / FILE).write_text(json.dumps({"files": told, "crc32": _crc(told)}))


def sealed_files(folder: Path) -> list[str]:
    """What `changed_files` can look at, rising: [] in a checkpoint of before there were seals."""
    told = _told(folder)
    return [] if told is None else sorted({*told, *([] if FILE in told else _found(folder))})


def changed_files(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of the names that are not as they were when the folder was sealed, lost and new too.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     file = Path(name) / "a"
    ...     _ = file.write_bytes(b"saved")
    ...     seal(Path(name))
    ...     _ = file.write_bytes(b"saveD")
    ...     changed_files(Path(name), sealed_files(Path(name)))
    ['a']
    """
    told = _told(folder)
    if told is None:
        return []
    with ThreadPoolExecutor(8) as threads:
        right = threads.map(lambda name: _is(folder / name, told.get(name)), names)
        return [name for name, held in zip(names, right, strict=True) if not held]


def _told(folder: Path) -> dict[str, Sequence[int]] | None:
    try:
        told = json.loads((folder / FILE).read_bytes())
        if told["crc32"] == _crc(told["files"]):
            return told["files"]
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    return {FILE: ()}  # its own bits are others


def _crc(told: Any) -> int:
    return zlib.crc32(json.dumps(told).encode())


def _found(folder: Path) -> list[str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return sorted(name for p in files if (name := p.relative_to(folder).as_posix()) not in _LATE)


def _is(path: Path, told: Sequence[int] | None) -> bool:
    try:
        return told is not None and list(told) == _check(path)
    except OSError:  # lost
        return False


def _check(path: Path) -> list[int]:
    if path.name == METADATA:
        data = _TIME.sub(b"", path.read_bytes())
        return [len(data), zlib.crc32(data)]
    crc = size = 0
    with path.open("rb") as f:
        while piece := f.read(_PIECE):
            crc, size = zlib.crc32(piece, crc), size + len(piece)
    return [size, crc]
