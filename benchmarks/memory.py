"""Whether memory stays flat: a virtual dataset of 10^9 records through five workers, for a while.

python benchmarks/memory.py 120
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import Dataset, Loader, Processes
from pipeline.block import Columns


class Virtual:
    """10^9 records that are computed, not stored."""

    def __len__(self) -> int:
        return 10**9

    def read(self, indices: Any) -> Columns:
        return Columns({"x": np.repeat(indices[:, None], 64, axis=1).astype(np.float32)})


def resident() -> float:
    """MiB that this process and its workers hold, shared pages counted in proportion."""
    total = 0
    for pid in [os.getpid(), *_descendants(os.getpid())]:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it ended meanwhile
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


def _descendants(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task").glob("*/children")
    pids = [int(pid) for path in children for pid in path.read_text().split()]
    return pids + [below for pid in pids for below in _descendants(pid)]


def main(seconds: float) -> None:
    ds = Dataset(Virtual()).shuffle().map(lambda row: {"x": row["x"] * 2}, name="double")
    with Loader(ds, 256, workers=Processes(5), ahead="64MiB") as loader:
        start = time.perf_counter()
        for tenth in range(1, 11):
            while time.perf_counter() - start < seconds * tenth / 10:
                next(loader)
            print(
                f"{seconds * tenth / 10:6.0f} s  {loader.step:>9,} batches  {resident():7.1f} MiB"
            )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20)
