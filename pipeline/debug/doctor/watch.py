"""One run of a loader: what came is written down, states are kept, and a worker may be killed."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle

from pipeline.debug.conformance.records import same
from pipeline.debug.doctor import processes
from pipeline.debug.doctor.rows import rows_of
from pipeline.debug.doctor.subjects import Subject
from pipeline.sources.storage.atomic import written_whole

_STARTING = 10.0  # seconds that workers may need to start
_LEAVING = 20.0  # seconds that a process may stay when its run is done


@dataclass(frozen=True)
class Job:
    """One run, as it is told to the interpreter that does it.

    Attributes:
        name: of the run; its log and states are files of this name.
        arguments: what the factory may be given.
        start: data step of the first batch, and `epoch` its pass.
        load: states to go on from, one a host; `text` takes their JSON instead.
        least: batches to take; on from there to `past` batches beyond the first pass, if given,
            but never more than `most`.
        cuts: steps after which the state is kept; `ends` likewise, once the pass has ended.
        kill: the step after which a worker is killed; `die`: the whole process.
        key: the field that names records.
        rank, world, store: this process's place among torch's, and where they meet.
        seconds: after so many the run is ended.
    """

    name: str
    arguments: dict[str, int] = field(default_factory=dict)
    start: int = 0
    epoch: int = 0
    load: tuple[str, ...] = ()
    text: bool = False
    least: int = 60
    past: int | None = None
    most: int = 60
    cuts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    kill: int | None = None
    die: int | None = None
    key: str | None = None
    seed: int = 0
    rank: int = 0
    world: int = 1
    store: str | None = None
    seconds: float = 60.0


class Enough(BaseException):
    """All that was wanted has come. Not an Exception, which a training loop may catch."""


class Log:
    """Lines of JSON: whatever becomes of the process, what it wrote can be read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, **what: Any) -> None:
        """Add a line."""
        with open(self._path, "a") as file:
            file.write(json.dumps(what) + "\n")

    def hung(self, seconds: float) -> None:
        """Say that the run was ended after so many seconds, and how long it had been silent."""
        self.write(hung=seconds, silent=self._silent() if self._path.exists() else seconds)

    def lingers(self) -> bool:
        """Whether the run said long ago that it was done."""
        if not self._path.exists() or self._silent() < _LEAVING:
            return False
        with open(self._path, "rb") as file:
            file.seek(max(0, self._path.stat().st_size - 4096))  # its last lines
            return b'"done": true' in file.read()

    def _silent(self) -> float:
        return time.time() - self._path.stat().st_mtime


class Watching:
    """Looks on as a subject runs; see `subjects.Watch`."""

    def __init__(self, job: Job, subject: Subject, log: Log, folder: Path) -> None:
        self._job, self._subject, self._log, self._folder = job, subject, log, folder
        self._step, self._edges, self._empty = job.start, list[int](), 0
        self._kept: list[tuple[int, Any, bytes]] = []

    def came(self, batch: Any) -> None:
        self._log.write(rows=rows_of(batch, self._job.key))
        self._step, self._empty = self._step + 1, 0

    def after(self) -> None:
        job = self._job
        if self._step in job.cuts:
            self._keep(f"{job.name}-{self._step}")
        if self._step == job.kill:
            self._kill()
        if self._step == job.die:
            self._remember_shared_memory()
            os.kill(os.getpid(), signal.SIGKILL)
        if self._enough():
            raise Enough

    def edge(self) -> None:
        self._log.write(edge=self._step)
        self._edges.append(self._step)
        self._empty += 1
        if self._step in self._job.ends:
            self._keep(f"{self._job.name}-{self._step}-end")
        if self._empty > 2 or self._step - self._job.start >= self._job.most:
            raise Enough

    def finish(self, loaded: list[tuple[Any, bytes]]) -> None:
        """Say which states were changed by what came after them, and what memory is shared."""
        for step, state, before in self._kept:
            if not same(state, pickle.loads(before)):
                self._log.write(changed=step)
        for state, before in loaded:
            if not same(state, pickle.loads(before)):
                self._log.write(changed=self._job.start)
        self._remember_shared_memory()

    def _enough(self) -> bool:
        job, taken = self._job, self._step - self._job.start
        if taken >= job.most:
            return self._step not in job.ends  # the end of the pass is still to be seen
        if taken < job.least:
            return False
        return job.past is None or bool(self._edges and self._step >= self._edges[0] + job.past)

    def _keep(self, name: str) -> None:
        state = self._subject.save()
        blob = pickled(state)
        self._kept.append((self._step, state, blob))
        try:
            text = json.dumps(_texts(state))
        except (TypeError, ValueError) as error:
            self._log.write(unjson=f"{type(error).__name__}: {error}")
        else:
            bare = isinstance(state, bytes)
            (self._folder / f"{name}.json").write_text(json.dumps([bare, text]))
        # last and at once: another host may wait for it
        with written_whole(self._folder / f"{name}.pickle") as file:
            file.write(blob)

    def _kill(self) -> None:
        # a loader may hand out its first batches before its workers are there
        until = time.monotonic() + (_STARTING if self._job.arguments.get("workers") else 0)
        while not (found := processes.workers(os.getpid())) and time.monotonic() < until:
            time.sleep(0.05)
        if not found:
            self._log.write(workerless=True)
            raise Enough
        victim = random.Random(self._job.seed).choice(found)
        self._log.write(killed=victim)  # first: the loader may raise as soon as it is dead
        os.kill(victim, signal.SIGKILL)

    def _remember_shared_memory(self) -> None:
        pids = [os.getpid(), *processes.descendants(os.getpid())]
        found = set[str]().union(*map(processes.shared_memory, pids))
        self._log.write(shared=sorted(found))


def loaded(folder: Path, name: str, *, text: bool, wait: float = 0.0) -> tuple[Any, bytes]:
    """A kept state, from its pickle or its JSON, and its pickle: to see later if it was changed.

    Args:
        folder: where states are.
        name: of the state.
        text: whether its JSON is taken.
        wait: seconds that another host may still need to write it.
    """
    until = time.monotonic() + wait
    while not (folder / f"{name}.pickle").exists() and time.monotonic() < until:
        time.sleep(0.02)
    if not text:
        blob = (folder / f"{name}.pickle").read_bytes()
        return pickle.loads(blob), blob
    bare, body = json.loads((folder / f"{name}.json").read_text())
    state = json.loads(body)
    state = state.encode() if bare else state
    return state, pickled(state)


def pickled(state: Any) -> bytes:
    """The state's pickle: it travels between our own processes only."""
    try:
        return pickle.dumps(state)
    except (pickle.PicklingError, AttributeError, TypeError):
        return cloudpickle.dumps(state)


def _texts(state: Any) -> Any:
    # Grain's older iterators give JSON as bytes
    return state.decode() if isinstance(state, bytes) else state
