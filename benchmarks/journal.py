"""What a journal costs: CPU time a step, beside the same loop without one.

Both loops go on by turns, so that what else the machine does weighs on both; of each, the median is
compared. Then what a run of many steps costs to open and to ask.

    python benchmarks/journal.py [--only cost | opening] [--lines 10000000]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
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
from pipeline.__main__ import main as main_of
from pipeline.debug.journal import Journal, Run
from pipeline.debug.journal.index import GROUP, index_path, record_of

STEP, STEPS = 0.1, 200  # seconds of the step that the cost is measured against; steps of each loop
BATCH = 8 << 20  # bytes
ROWS = 8  # of a batch of the long run
data = Dataset(range(100_000), seed=1).shuffle().repeat()


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


def long_run(folder: Path, lines: int) -> None:
    """A run of so many steps, with a spike in its middle: its lines, and their index."""
    with Journal(folder, loader := Loader(data, ROWS), data="benchmarks.journal:data") as journal:
        next(loader)
        journal.log(loss=1.0, grad_norm=1.0)
    rng = np.random.default_rng(0)
    losses = (2 + rng.normal(0, 0.01, lines)).round(6)
    losses[lines // 2] = 9
    path, at = folder / "ledger.jsonl", 0
    with open(path, "wb") as f, open(index_path(path), "wb") as index:
        for first in range(0, lines, GROUP):
            spans: list[tuple[int, int, int, int, bool]] = []
            for step in range(first, min(first + GROUP, lines)):
                end = at + f.write(_LINE % (step, losses[step], step, ROWS * step, ROWS * step + 8))
                spans.append((at, end, step, step + 1, True))
                at = end
            if len(spans) == GROUP:
                index.write(record_of(spans).tobytes())


_LINE = (
    b'{"step": %d, "launch": 0, "loss": %.6f, "loss_bits": "3f800000", "grad_norm": 0.731231, '
    b'"digest": "0123456789abcdef0123456789abcdef", "data_step": %d, "rows": [%d, %d], "seconds": '
    b'{"data": 0.001231, "step": 0.101212, "save": 0.0}, '
    b'"chain": "0123456789abcdef0123456789abcdef"}\n'
)


def opening(lines: int) -> None:
    """CPU seconds of commands on a run of so many steps."""
    with tempfile.TemporaryDirectory() as folder:
        long_run(Path(folder), lines)
        size = (Path(folder) / "ledger.jsonl").stat().st_size
        print(f"a run of {lines:,} steps, {size / 1e9:.2f} GB")
        print(f"  opened             {timed(lambda: Run(folder)) * 1e3:9.1f} ms")
        found = Run(folder)
        print(f"  a step's line      {timed(lambda: found.line(lines // 2)) * 1e3:9.1f} ms")
        for words in (["where", folder, str(lines // 2)], ["spikes", folder, "--threshold", "20"]):
            with contextlib.redirect_stdout(io.StringIO()) as told:
                spent = timed(lambda words=words: main_of(words))
            print(f"  pipeline {words[0]:10}{spent * 1e3:9.1f} ms", flush=True)
        assert told.getvalue().splitlines()[1].split()[0] == f"{lines // 2:,}"
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"  most memory        {memory:9.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("cost", "opening"))
    parser.add_argument("--lines", type=int, nargs="+", default=[10_000, 1_000_000])
    args = parser.parse_args()
    if args.only != "opening":
        print("batches of 8 MB, beside a step of 100 ms; CPU time")
        for rows in (8, 64, 256, 1024, 8192):
            added, without = cost(rows)
            told = f"{added * 1e3:6.2f} ms a step, {added / STEP:6.2%}"
            print(f"{rows:5} rows: {told} (data without it {without * 1e3:.1f} ms)", flush=True)
    if args.only != "cost":
        for lines in args.lines:
            opening(lines)


if __name__ == "__main__":
    main()
