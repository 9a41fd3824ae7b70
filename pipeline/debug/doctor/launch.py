"""Fresh interpreters: started, waited for, and what they saw."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.debug.doctor import processes
from pipeline.debug.doctor.child import COMMAND
from pipeline.debug.doctor.rows import Record
from pipeline.debug.doctor.watch import Job, Log

IMPORT = 60.0  # seconds that an interpreter may take to import the factory's module
_GRACE = 6.0  # seconds after which a process that still lives is left behind
_ORPHANS = 15.0  # the same where the parent was killed: torch's workers look every five seconds


@dataclass
class Seen:
    """What came in a run.

    Attributes:
        job: what was to be done.
        batches: rows of each batch.
        edges: data steps at which passes ended.
        facts: all else that the run wrote down, by name.
    """

    job: Job
    batches: list[list[Record]] = field(default_factory=list[list[Record]])
    edges: list[int] = field(default_factory=list[int])
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def failure(self) -> str | None:
        """Why the run did not come to its end, if it did not."""
        if "done" in self.facts:
            return None
        if "error" in self.facts:
            return str(self.facts["error"])
        hung = self.facts.get("hung")
        return "the process died" if hung is None else f"nothing more within {hung:.0f} s"


class Launcher:
    """Starts interpreters for one factory, two at a time, and remembers what they left behind."""

    def __init__(self, factory: str) -> None:
        self._factory, self._token = factory, secrets.token_hex(8)
        self._temporary = tempfile.TemporaryDirectory(prefix="lockstep-doctor-")
        self.folder = Path(self._temporary.name)
        self._pool = ThreadPoolExecutor(max_workers=2)
        self._launches = 0
        self.leftovers: list[str] = []
        self.heavy: list[str] = []
        self.importing = IMPORT

    def start(self, *jobs: Job) -> Future[list[Seen]]:
        """Do jobs in one interpreter, after another, in the background."""
        return self._pool.submit(self._launch, [jobs])

    def start_ranks(self, ranks: Sequence[Sequence[Job]]) -> Future[list[Seen]]:
        """Do each rank's jobs at the same time, an interpreter a rank."""
        return self._pool.submit(self._launch, ranks)

    def close(self) -> None:
        """End what still runs, and remove the folder."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        processes.end(processes.marked(self._token))  # an interrupted examination waits for none
        self._pool.shutdown()
        processes.end(processes.marked(self._token))
        self._temporary.cleanup()

    def _launch(self, ranks: Sequence[Sequence[Job]]) -> list[Seen]:
        self._launches += 1
        mark = f"{self._token}.{self._launches}.{ranks[0][0].name}"
        running = [self._interpreter(jobs, mark) for jobs in ranks]
        for process, jobs in running:
            try:
                process.wait(self.importing + sum(job.seconds for job in jobs))
            except subprocess.TimeoutExpired:
                processes.end(processes.marked(mark))  # they did not stay: they were not waited for
                process.wait()
                for job in jobs:
                    Log(self.folder / f"{job.name}.{job.rank}.log").hung(job.seconds)
        seen = [read(self.folder, job) for _, jobs in running for job in jobs]
        self._look_behind(mark, seen)
        return seen

    def _interpreter(self, jobs: Sequence[Job], mark: str) -> Any:
        for job in jobs:
            (self.folder / f"{job.name}.job").write_text(json.dumps(asdict(job)))
        names = ",".join(job.name for job in jobs)
        heavy = ",".join(self.heavy)
        command = [sys.executable, "-W", "ignore", "-c", COMMAND]
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a fork wants one thread
        seed = {"PYTHONHASHSEED": str(self._launches)}
        path = {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
        with open(self.folder / f"{jobs[0].name}.{jobs[0].rank}.out", "w") as out:
            process = subprocess.Popen(
                [*command, self._factory, str(self.folder), names, heavy],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=os.environ | threads | seed | path | {processes.MARK: mark},
            )
        return process, jobs

    def _look_behind(self, mark: str, seen: list[Seen]) -> None:
        grace = _ORPHANS if any(run.job.die for run in seen) else _GRACE
        lost = processes.left(mark, 1.0 if self.leftovers else grace)
        self.leftovers += map(processes.name_of, lost)
        late = any("hung" in run.facts and "done" not in run.facts for run in seen)
        stuck = [run.job.name for run in seen if {"done", "hung"} <= run.facts.keys() and not late]
        self.leftovers += [f"the process of the run {name!r}, which did not end" for name in stuck]
        processes.end(lost)
        until = time.monotonic() + 2
        memory = {path for run in seen for path in run.facts.get("shared", ())}
        while any(map(os.path.exists, memory)) and time.monotonic() < until:
            time.sleep(0.1)
        for path in sorted(filter(os.path.exists, memory)):
            self.leftovers.append(f"shared memory {path}")
            os.unlink(path)


def read(folder: Path, job: Job) -> Seen:
    """What a run wrote down."""
    seen, path = Seen(job), folder / f"{job.name}.{job.rank}.log"
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:
            break  # the process died as it wrote
        if "rows" in told:
            seen.batches.append(told["rows"])
        elif "edge" in told:
            seen.edges.append(told["edge"])
        else:
            seen.facts |= told
    return seen
