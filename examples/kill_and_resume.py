"""A run that is killed again and again, beside one that is not: not one batch differs.

The child reads batches and writes one line each; the parent kills it with SIGKILL at several steps.
State goes into a file after each batch, by an atomic rename, as a checkpoint would.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from pipeline import Dataset, Loader
from pipeline.debug.digest import digest

STEPS = 60
KILLS = (5, 6, 23, 41)


def dataset() -> Dataset:
    """Documents of random lengths, shuffled, filtered and packed: a counted dataset, endless."""
    lengths = np.random.default_rng(0).integers(1, 30, size=500)
    documents = [np.full(n, i, np.int32) for i, n in enumerate(lengths)]
    ds = Dataset(documents, seed=3).shuffle().filter(lambda row: len(row) > 3)
    return ds.pack(32, how="first_fit").repeat()


def child(folder: Path) -> None:
    """Go on from the saved state, if there is one, to the last step; one line a step."""
    state = folder / "state.json"
    loader = Loader(dataset(), 8)
    if state.exists():
        loader.load_state_dict(json.loads(state.read_text()))
    with (folder / "batches.txt").open("a") as log:
        while loader.step < STEPS:
            step = loader.step
            log.write(f"{step} {digest(next(loader))}\n")
            log.flush()
            (folder / "new.json").write_text(json.dumps(loader.state_dict()))
            os.replace(folder / "new.json", state)
            print(step, flush=True)


def main() -> None:
    uninterrupted = Loader(dataset(), 8)
    expected = [digest(next(uninterrupted)) for _ in range(STEPS)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kill_at in (*KILLS, None):
            command = [sys.executable, __file__, str(folder)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    if kill_at is not None and int(line) >= kill_at:
                        process.send_signal(signal.SIGKILL)
                        break
            print(f"killed with SIGKILL at step {kill_at}" if kill_at else "ran to the end")
        lines = [line.split() for line in (folder / "batches.txt").read_text().splitlines()]
    wrong = [step for step, seen in lines if expected[int(step)] != seen]
    missing = set(range(STEPS)) - {int(step) for step, _ in lines}
    print(f"{len(lines)} batches in {len(KILLS) + 1} launches: ", end="")
    print(f"{len(wrong)} differ, {len(missing)} missing")
    if wrong or missing:
        sys.exit(f"batches differ at steps {wrong}, missing {sorted(missing)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(Path(sys.argv[1]))
    else:
        main()
