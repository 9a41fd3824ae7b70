"""What a fresh interpreter does: imports the factory, then forks a process for each job."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.debug.doctor import processes
from pipeline.debug.doctor.subjects import named_arguments, subject_of
from pipeline.debug.doctor.watch import Enough, Job, Log, Watching, loaded
from pipeline.debug.named import imported
from pipeline.errors import ChainError
from pipeline.workers.forkserver import unsafe_threads

COMMAND = "import sys; from pipeline.debug.doctor.child import main; main(*sys.argv[1:])"


# what a factory may import as it is called; to import it once saves seconds a run
_HEAVY = ("torch", "datasets", "accelerate", "lightning", "litdata", "streaming", "grain")


def main(factory: str, folder: str, names: str, heavy: str) -> None:
    """Do the jobs of these names, one after the other, each in a process of its own.

    The factory's module is imported once and the interpreter forked for each job, as long as it has
    one thread; else each job gets an interpreter of its own.

    Args:
        factory: "module:name".
        folder: where jobs, states and logs are.
        names: of the jobs, between commas.
        heavy: modules that the factory was seen to import, between commas.
    """
    jobs = [_job(Path(folder), name) for name in names.split(",")]
    try:
        make = imported(factory)
        if not callable(make):
            raise ChainError(f"{factory} is no function: name one that makes a loader anew")
    except BaseException as error:
        for job in jobs:
            own = str(error) if isinstance(error, ChainError) else _said(error)
            Log(_log(folder, job)).write(error=own, early=True)
        raise
    for module in filter(None, heavy.split(",")):
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    pid = 0
    for job in jobs:
        alone = unsafe_threads() == 1
        if (not alone and len(jobs) == 1) or (alone and (pid := os.fork()) == 0):
            return _do(job, make, Path(folder))
        if alone:
            _wait(pid, job, folder)
        else:
            command = [sys.executable, "-c", COMMAND, factory, folder, job.name, heavy]
            _wait(subprocess.Popen(command).pid, job, folder)
    return None


def _job(folder: Path, name: str) -> Job:
    told: dict[str, Any] = json.loads((folder / f"{name}.job").read_text())
    lists: dict[str, Any] = {k: tuple(v) for k, v in told.items() if isinstance(v, list)}
    return Job(**{**told, **lists})


def _log(folder: Path | str, job: Job) -> Path:
    return Path(folder) / f"{job.name}.{job.rank}.log"


def _do(job: Job, make: Any, folder: Path) -> None:
    log = Log(_log(folder, job))
    try:
        _join(job)
        named = named_arguments(make)
        arguments = {k: v for k, v in job.arguments.items() if k in named}
        subject = subject_of(make(**arguments))
        log.write(
            named=sorted(named), keeps=subject.keeps, plain=subject.plain, torch=subject.torch
        )
        wait = job.seconds / 2 if len(job.load) > 1 else 0.0
        found = [loaded(folder, name, text=job.text, wait=wait) for name in job.load]
        watch = Watching(replace(job, arguments=arguments), subject, log, folder)
        if found:
            subject.restore([state for state, _ in found], job.rank)
        if subject.skips_ends:
            log.write(skips_ends=True)
        with contextlib.suppress(Enough):
            subject.run(watch, job.epoch)
        watch.finish(found)
        log.write(done=True, heavy=[name for name in _HEAVY if name in sys.modules])
        _leave(job)
    except BaseException as error:
        # torch raises from this signal wherever it arrives: while the error is written, too
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log.write(error=_said(error), kind=type(error).__name__)
        raise


def _join(job: Job) -> None:
    # what torchrun sets, for whoever looks there: Accelerate and Lightning do
    if job.store is None:
        return
    import torch.distributed as dist

    place = {"RANK": job.rank, "LOCAL_RANK": job.rank, "GROUP_RANK": 0, "WORLD_SIZE": job.world}
    elastic = {"LOCAL_WORLD_SIZE": job.world, "TORCHELASTIC_RUN_ID": "doctor"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500, "ACCELERATE_USE_CPU": "true"}
    os.environ.update({k: str(v) for k, v in {**place, **elastic, **address}.items()})
    dist.init_process_group(
        "gloo", init_method=f"file://{job.store}", rank=job.rank, world_size=job.world
    )


def _leave(job: Job) -> None:
    if job.store is None:
        return
    import torch.distributed as dist

    dist.barrier()
    dist.destroy_process_group()


def _wait(pid: int, job: Job, folder: str) -> None:
    # a run that hangs is ended, and said to hang
    log, until = Log(_log(folder, job)), time.monotonic() + job.seconds
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > until or log.lingers():
            log.hung(job.seconds)
            processes.end([*processes.descendants(pid), pid])
            os.waitpid(pid, 0)
            return
        time.sleep(0.02)


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:500]}"
