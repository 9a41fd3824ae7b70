"""Which files a run's journal has: those of the first process have plain names."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Protocol

from pipeline.errors import JournalError

_OTHERS = re.compile(r"ledger-(\d{5,})\.jsonl")


class Files:
    """The files of one process of a run.

    >>> Files(Path("runs/a"), 0).ledger.as_posix(), Files(Path("runs/a"), 3).states.as_posix()
    ('runs/a/ledger.jsonl', 'runs/a/states-00003.jsonl')
    """

    def __init__(self, folder: Path, host: int) -> None:
        end = f"-{host:05d}.jsonl" if host else ".jsonl"
        self.ledger = folder / f"ledger{end}"
        self.launches = folder / f"launches{end}"
        self.states = folder / f"states{end}"


def hosts_in(folder: Path) -> list[int]:
    """Numbers of the processes that have a ledger in a folder."""
    first = [0] if (folder / "ledger.jsonl").exists() else []
    found = (_OTHERS.fullmatch(path.name) for path in folder.glob("ledger-*.jsonl"))
    return first + sorted(int(match[1]) for match in found if match)


def local(folder: str | os.PathLike[str]) -> Path:
    """The folder of a run that is to be written; it is made.

    Raises:
        JournalError: it lies elsewhere, or is a file.
    """
    text = os.fspath(folder)
    if "://" in text:
        raise JournalError(f"{text}: a run lies in a local folder; copy it elsewhere after.")
    path = Path(os.path.abspath(text))  # so that a later chdir does not split the run
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as e:
        raise JournalError(f"{path} is a file: a run needs a folder.") from e
    return path


class Locked(Protocol):
    """A file that is open."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


def lock(file: Locked, folder: Path) -> None:
    """Keep other processes from writing to a run's file: lines would mix. It dies with its holder.

    Raises:
        JournalError: another process holds it; the file is closed.
    """
    try:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return
    except OSError as e:
        if e.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            return  # a file system that knows no locks
        file.close()
        raise JournalError(
            f"another process writes the journal of {folder}. Wait until it ends, or give this run "
            "a folder of its own."
        ) from e
