"""Which files a run's journal has: those of the first process have plain names."""

from __future__ import annotations

import re
from pathlib import Path

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
