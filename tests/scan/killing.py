"""A function that kills its process at one record, as long as a file is there."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from pipeline import Dataset, scan

RECORDS, FATAL = 5_000, 3_000
CALLS: list[int] = []


def dataset() -> Dataset:
    """What is scanned."""
    return Dataset(range(RECORDS))


class Fatal:
    """Whether a number divides by 3; at FATAL the process dies, if the file is there."""

    def __init__(self, trap: Path) -> None:
        self._trap = trap

    def __call__(self, x: int) -> bool:
        CALLS.append(x)
        if x == FATAL and self._trap.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return x % 3 == 0


if __name__ == "__main__":
    scan(dataset(), Fatal(Path(sys.argv[1])), path=sys.argv[2], workers=0)
