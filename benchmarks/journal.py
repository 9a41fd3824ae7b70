"""What a journal costs: CPU time a step, beside the same loop without one.

Run it as: python benchmarks/journal.py. Both loops go on by turns, so that what else the machine
does weighs on both; of each, the median is compared.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from pipeline import Columns, Dataset, Loader
from pipeline.debug.journal import Journal, Run
from pipeline.debug.journal.ledger import Ledger, LedgerFile
from pipeline.debug.journal.line import Line

STEP, STEPS = 0.1, 200  # seconds of the step that the cost is measured against; steps of each loop
BATCH = 8 << 20  # bytes


def tokens(rows: int) -> Dataset:
    """Rows of int32 tokens, so many that a batch of them has 8 MB."""
    length = BATCH // rows // 4
    kept = np.arange(4 * rows * length, dtype=np.int32).reshape(4 * rows, length)
    return Dataset(Columns({"tokens": kept}), seed=1).shuffle().repeat()


def cost(rows: int) -> tuple[float, float]:
    """CPU seconds that a journal adds to a step, and those of the step's data without it."""
    with tempfile.TemporaryDirectory() as folder:
        plain, watched = Loader(tokens(rows), rows), Loader(tokens(rows), rows)
        journal = Journal(folder, watched)

        def with_journal() -> None:
            next(watched)
            journal.log(loss=1.0, grad_norm=2.0)

        pairs = [(timed(lambda: next(plain)), timed(with_journal)) for _ in range(STEPS)]
        journal.close()
    without, beside = (statistics.median(x) for x in zip(*pairs, strict=True))
    return beside - without, without


def timed(f: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    before = time.process_time()
    f()
    return time.process_time() - before


def opening(lines: int) -> tuple[float, float]:
    """CPU seconds to open a ledger of so many lines, and to find a step in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        ledger = Ledger(path)
        line = Line(
            step=0,
            launch=0,
            loss=1.0,
            loss_bits="3f800000",
            grad_norm=1.0,
            digest="0" * 32,
            data_step=0,
            rows=(0, 8),
            seconds={"data": 0.1, "step": 0.1, "save": 0.0},
            chain="0" * 32,
        )
        for step in range(lines):
            object.__setattr__(line, "step", step)
            object.__setattr__(line, "data_step", step)
            ledger.append(line)
        ledger.close()
        opened = timed(lambda: Run(folder))
        found = LedgerFile(path)
        return opened, timed(lambda: found.latest(lines // 2))


def main() -> None:
    print("batches of 8 MB, beside a step of 100 ms; CPU time")
    for rows in (8, 64, 256, 1024, 8192):
        added, without = cost(rows)
        told = f"{added * 1e3:6.2f} ms a step, {added / STEP:6.2%}"
        print(f"{rows:5} rows: {told} (data without it {without * 1e3:.1f} ms)")
    for lines in (10_000, 300_000):
        opened, found = opening(lines)
        print(f"{lines:,} steps: opened in {opened * 1e3:.1f} ms, a step in {found * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
