"""Kills and stops training at random moments, and holds what comes out against undisturbed runs.

    python -m tests.harness.chaos --kills 1000 [--seed 0] [--jobs 2]

Over one process with one and with four devices, and two processes with one: SIGKILL and SIGTERM
while a run starts, converts, compiles, trains, saves and evaluates. A run is started again until it
is done. Then its ledger lines and its final parameters are those of the undisturbed run, and
nothing is left behind. The exit status is 1 where anything was not so. Jobs are runs disturbed at
the same time: two take two cores, and a thousand signals some ninety minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from harness.files import read_lines
from harness.ledger import read
from tests.harness.runs import LIMIT, Workplace, bits, mid_save, outcomes, unfinished

STEPS = 40
MOST_KILLS = 8  # of one run; then it may end in peace
ALONE = 30.0  # seconds after which a launcher ends those who wait for one that never joined
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)
PHASES = ("start", "convert", "compile", "train", "train", "save", "evaluate")


class Layout(NamedTuple):
    processes: int
    devices: int

    def __str__(self) -> str:
        return f"{self.processes}x{self.devices}"


LAYOUTS = (Layout(1, 1), Layout(1, 4), Layout(2, 1))


class Chaos:
    """Runs in one folder, disturbed and undisturbed.

    Attributes:
        failures: what was not as it should be, in words.
        done: how many disturbances there were, by phase and signal.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self.place, self._seed = Workplace(path), seed
        self.failures: list[str] = []
        self.done: Counter[str] = Counter()
        self.ended: Counter[int] = Counter()
        self._lock, self._runs = threading.Lock(), itertools.count()
        for layout in LAYOUTS:
            self._finish(f"whole-{layout}", layout)

    def kills(self, wanted: int, jobs: int = 1) -> None:
        """Disturb runs, so many at a time, until there were so many signals."""
        with ThreadPoolExecutor(jobs) as pool:
            for job in [pool.submit(self._job, wanted) for _ in range(jobs)]:
                job.result()

    def _job(self, wanted: int) -> None:
        while self.done.total() < wanted:
            number = next(self._runs)
            self._disturb(number, LAYOUTS[number % len(LAYOUTS)], wanted)
            print(f"{self.done.total():>5} of {wanted}, failures {len(self.failures)}", flush=True)

    def _disturb(self, number: int, layout: Layout, wanted: int) -> None:
        name, chance = f"run-{number}", random.Random(f"{self._seed} {number}")
        run = self.place.path / name
        fresh = chance.random() < 0.3  # its own corpus, so that a kill falls into converting
        data = [f"data={'data' if fresh else '../data'}"]
        for _ in range(min(MOST_KILLS, -(-wanted // len(LAYOUTS)))):  # of few, each layout has some
            phase, kind = chance.choice(PHASES), chance.choice(SIGNALS)
            launches = len(read_lines(run / "launches.jsonl"))
            running = self.place.start_several(
                name, layout.processes, *data, devices=layout.devices
            )
            reached = _reach(run, phase, running, chance)
            if reached:
                chance.choice(running).send_signal(kind)
                with self._lock:
                    self.done[f"{phase} {kind.name}"] += 1
            began = len(read_lines(run / "launches.jsonl")) > launches
            joined = layout.processes == 1 or not reached or began
            self._ends(f"{name} {layout} {phase} {kind.name}", running, joined=joined)
            if not reached or self.done.total() >= wanted:
                break
        if self._finish(name, layout, *data):
            self._compare(run, self.place.path / f"whole-{layout}")

    def _ends(self, what: str, running: list[subprocess.Popen[str]], *, joined: bool) -> None:
        # whoever dies before all have joined is missed by the launcher alone, which ends the others
        told: list[str] = []
        for process in running:
            try:
                told.append(process.communicate(timeout=LIMIT if joined else ALONE)[0])
            except subprocess.TimeoutExpired:
                process.kill()
                told.append(process.communicate()[0] + "\nstill there" * joined)
        statuses = [process.returncode for process in running]
        with self._lock:
            self.ended.update(statuses)
        odd = [s for s in statuses if s not in (0, 75, 143, -signal.SIGKILL, -signal.SIGTERM)]
        if odd or any("Traceback" in out or "still there" in out for out in told):
            self._failed(f"{what}: ended with {statuses}\n" + "\n---\n".join(told))

    def _failed(self, what: str) -> None:
        self.failures.append(what)
        print(what, flush=True)

    def _finish(self, name: str, layout: Layout, *more: str) -> bool:
        running = self.place.start_several(name, layout.processes, *more, devices=layout.devices)
        found = outcomes(running)
        if any(status for status, _ in found):
            told = "\n---\n".join(out for _, out in found)
            self._failed(f"{name} {layout} could not be finished\n{told}")
            return False
        return True

    def _compare(self, run: Path, whole: Path) -> None:
        expected = {entry.step: bits(entry) for entry in read(whole / "ledger.jsonl")}
        lines = read(run / "ledger.jsonl")
        for entry in lines:
            if bits(entry) != expected[entry.step]:
                self._failed(f"{run.name}: the line of step {entry.step} differs")
        if {entry.step for entry in lines} != set(range(STEPS)):
            self._failed(f"{run.name}: steps are missing")
        last = f"checkpoints/{STEPS}/digests/digests.json"
        for file in (last, "evaluation.json"):
            if json.loads((run / file).read_text()) != json.loads((whole / file).read_text()):
                self._failed(f"{run.name}: {file} differs")
        left = [*run.glob("data/.sotu*"), *(run / "checkpoints").glob(".removed-*")]
        if left or unfinished(run):
            self._failed(f"{run.name}: left behind {left} {unfinished(run)}")


def _reach(
    run: Path, phase: str, running: list[subprocess.Popen[str]], chance: random.Random
) -> bool:
    """Wait for the phase, and a moment in it; False where the run ended before."""
    at = _steps(run)
    step = chance.randint(at, STEPS - 1) if at < STEPS else STEPS - 1
    moment = chance.random()
    holds = {
        "start": lambda: True,
        "convert": lambda: bool(list(run.glob("data/.sotu*"))),
        "compile": lambda: (run / "checkpoints/0").exists(),
        "train": lambda: _steps(run) > step,
        "save": lambda: mid_save(at)(run),
        "evaluate": lambda: _steps(run) >= STEPS,
    }[phase]
    waits = {"start": 4.0, "convert": 0.3, "compile": 2.0, "evaluate": 0.5}.get(phase, 0.05)
    if not _until(holds, running):
        return False
    deadline = time.monotonic() + moment * waits
    return _until(lambda: time.monotonic() >= deadline, running)


def _steps(run: Path) -> int:
    return max((entry.step + 1 for entry in read(run / "ledger.jsonl")), default=0)


def _until(holds: Callable[[], bool], running: list[subprocess.Popen[str]]) -> bool:
    deadline = time.monotonic() + LIMIT
    while not holds():
        if time.monotonic() > deadline or any(process.poll() is not None for process in running):
            return False
        time.sleep(0.002)
    return all(process.poll() is None for process in running)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chaos = Chaos(Path(folder), args.seed)
        chaos.kills(args.kills, args.jobs)
    for what, n in sorted(chaos.done.items()):
        print(f"{what:<20} {n:>5}")
    print(f"{chaos.done.total()} signals, {len(chaos.failures)} failures; {dict(chaos.ended)}")
    return 1 if chaos.failures else 0


if __name__ == "__main__":
    sys.exit(main())
