"""Who evaluates batches: the loop's own thread, threads, processes or Ray. Data never depend on it.

Begin with work.py (what workers evaluate) and serial.py, the simplest executor. The others share
executor.py and queue.py; pool.py and child.py are the two ends of a worker process.
"""

from __future__ import annotations

import os
from typing import Any, cast

import numpy as np

from pipeline.checks import byte_count
from pipeline.errors import ChainError
from pipeline.workers.auto import Auto
from pipeline.workers.processes import Processes
from pipeline.workers.ray import Ray
from pipeline.workers.serial import Serial
from pipeline.workers.threads import Threads
from pipeline.workers.work import Workers

__all__ = ["Auto", "Processes", "Ray", "Serial", "Threads", "Workers", "budget", "chosen"]


def chosen(workers: Any) -> Workers:
    """The description of workers that `Loader(workers=)` stands for.

    Args:
        workers: 0, "auto", a number of processes, or such a description.

    Raises:
        ChainError: it is none of these.

    >>> chosen(0), chosen(2)
    (Serial(), Processes(n=2, timeout=None, parent=True))
    """
    number = isinstance(workers, int | np.integer) and not isinstance(workers, bool)
    if number and workers >= 0:
        return Processes(int(workers)) if workers else Serial()
    if isinstance(workers, str) and workers == "auto":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return Processes(min(16, (cores or 1) - 1)) if cores and cores > 1 else Serial()
    if isinstance(workers, type):
        name = workers.__name__
        raise ChainError(f"workers={name} is a class: give an object, as in {name}(4)")
    if hasattr(workers, "open"):
        return cast(Workers, workers)
    raise ChainError(
        f'workers={workers!r}: give 0, "auto", a number of processes, Threads(n), Processes(n) '
        "or Ray(n)"
    )


def budget(ahead: Any) -> int:
    """Bytes, from a whole number or words like "512MiB".

    Raises:
        ChainError: it is neither.

    >>> budget("512MiB"), budget(1000)
    (536870912, 1000)
    """
    return byte_count("ahead", ahead)
