"""The index of a ledger: a record for each 256 lines, so that any step is found at once.

It lies beside the ledger, and is made again from it wherever it does not fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GROUP = 256  # lines that one record covers
_FIELDS = ("start", "stop", "low", "high", "data_low", "data_high", "breaks")
_RECORD = np.dtype([(name, "<i8") for name in _FIELDS])


def index_path(path: Path) -> Path:
    """Where the index of a ledger lies.

    >>> index_path(Path("runs/a/ledger.jsonl")).as_posix()
    'runs/a/ledger.index'
    """
    return path.with_suffix(".index")


# of a line: first byte, end, step, end of its data steps, whether it follows the line above it
Span = tuple[int, int, int, int, bool]


def record_of(spans: list[Span]) -> NDArray[Any]:
    """The record of 256 lines."""
    steps, ends = [s[2] for s in spans], [s[3] for s in spans]
    breaks = sum(not s[4] for s in spans)
    edges = spans[0][0], spans[-1][1], min(steps), max(steps), min(ends), max(ends), breaks
    return np.array([edges], _RECORD)


def load(path: Path) -> NDArray[Any]:
    """The records of an index's file; none where it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError:
        return none()
    return np.frombuffer(data[: len(data) // _RECORD.itemsize * _RECORD.itemsize], _RECORD)


def none() -> NDArray[Any]:
    """No records."""
    return np.zeros(0, _RECORD)
