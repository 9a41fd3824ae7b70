"""What a mix costs beside its components: rows/s, memory and threads of up to 200 of them.

Each number of components is a process of its own, indexed (arrays) and counted (packed documents).
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import Dataset, Loader, mix
from pipeline.debug.mixture import dealt

COMPONENTS = [1, 2, 20, 200]
ROWS, LENGTH, BATCH = 200_000, 512, 256


class Documents:
    """10^6 documents of 1 to 400 tokens, computed and not stored."""

    def __len__(self) -> int:
        return 10**6

    def read(self, indices: Any) -> list[Any]:
        return [np.full(1 + i * 7919 % 400, i, np.int32) for i in indices.tolist()]


def component(kind: str, seed: int) -> Dataset:
    if kind == "indexed":
        return Dataset({"x": np.arange(10**6)}, seed=seed).shuffle()
    return Dataset(Documents(), seed=seed).shuffle().pack(LENGTH, how="first_fit")


def resident() -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line) / 1024


def measure(kind: str, n: int) -> None:
    rng = np.random.default_rng(0)
    parts = {f"c{i}": component(kind, i) for i in range(n)}
    weights = dict(zip(parts, rng.uniform(0.1, 10, n).tolist(), strict=True))
    ds = mix(parts, weights, "never") if n > 1 else parts["c0"].repeat()
    before = resident()
    loader = Loader(ds, BATCH)
    started = time.perf_counter()
    next(loader)
    first = time.perf_counter() - started
    while loader.step < (ROWS if kind == "indexed" else ROWS // 10) // BATCH:
        next(loader)
    rate = (loader.step - 1) * BATCH / (time.perf_counter() - started - first)
    counts = ""
    if n > 1:
        again = time.perf_counter()
        dealt(ds, 10**12)
        counts = f"  counts at row 10^12 in {(time.perf_counter() - again) * 1e3:.2f} ms"
    print(
        f"{kind:8} {n:4}  {rate:9,.0f} rows/s  first batch {first * 1e3:6.0f} ms  "
        f"{resident() - before:6.1f} MiB more  {threading.active_count()} thread{counts}"
    )


def main() -> None:
    for kind in ("indexed", "counted"):
        for n in COMPONENTS:
            subprocess.run([sys.executable, __file__, kind, str(n)], check=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[1], int(sys.argv[2]))
    else:
        main()
