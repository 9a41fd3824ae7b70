"""CPU seconds a batch of two checkouts, turn by turn: `python benchmarks/nodes.py OLD NEW`."""

from __future__ import annotations

import statistics
import subprocess
import sys

WORKLOADS = ("rows map", "columns", "filter + pack", "mix of 3", "mix of 200")
ROUNDS = 9
_SCRIPT = """
import sys, time
import numpy as np
from pipeline import Dataset, Loader, mix

def plus(row): return {"x": row["x"] + 1}
def some(row): return len(row) % 3 > 0

def columns(n): return Dataset({"x": np.arange(n), "y": np.zeros((n, 8), np.float32)}, seed=1)
def mixed(k):
    parts = {str(i): columns(1000 + i).shuffle() for i in range(k)}
    return mix(parts, {str(i): 1 + i % 3 for i in range(k)}, "never")

def rows(): return Dataset([{"x": np.full(4, i)} for i in range(2000)], seed=1).shuffle()
def documents(): return Dataset([np.arange(1 + i % 7) for i in range(4000)], seed=1).shuffle()

datasets = {
    "rows map": lambda: rows().map(plus, name="plus"),
    "columns": lambda: columns(100_000).shuffle(),
    "filter + pack": lambda: documents().filter(some, name="some").pack(32),
    "mix of 3": lambda: mixed(3),
    "mix of 200": lambda: mixed(200),
}
steps = {"rows map": 200, "columns": 1000, "filter + pack": 200, "mix of 3": 400, "mix of 200": 60}
for name in sys.argv[1].split(","):
    loader = Loader(datasets[name]().repeat(), 64)
    for _ in range(20):
        next(loader)
    started = time.process_time()
    for _ in range(steps[name]):
        next(loader)
    print(name, (time.process_time() - started) / steps[name], sep="\\t")
"""


def seconds(checkout: str) -> dict[str, float]:
    """CPU seconds a batch of each workload, in an interpreter of its own."""
    out = subprocess.run(
        [sys.executable, "-c", _SCRIPT, ",".join(WORKLOADS)],
        env={"PYTHONPATH": checkout, "PATH": "", "OMP_NUM_THREADS": "1"},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.split("\t")[0]: float(line.split("\t")[1]) for line in out.stdout.splitlines()}


def main(old: str, new: str) -> None:
    """Print each workload's median ratio old / new: above 1, the new one is faster."""
    ratios: dict[str, list[float]] = {name: [] for name in WORKLOADS}
    for i in range(ROUNDS):
        pair = [old, new] if i % 2 else [new, old]
        found = {checkout: seconds(checkout) for checkout in pair}
        for name in WORKLOADS:
            ratios[name].append(found[old][name] / found[new][name])
    for name, values in ratios.items():
        spread = f"{min(values):.2f}..{max(values):.2f}"
        print(f"{name}: {statistics.median(values):.3f} ({spread})")


if __name__ == "__main__":
    main(*sys.argv[1:3])
