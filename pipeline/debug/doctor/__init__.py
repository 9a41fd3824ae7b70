"""The laws, run on anybody's loader: `python -m pipeline doctor module:factory`.

Begin with plan.py: which runs there are. subjects.py knows loaders of other libraries, child.py is
what an interpreter does, verdicts.py judges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.checks import whole
from pipeline.debug.doctor.launch import Launcher
from pipeline.debug.doctor.plan import DoctorError, Options, examined
from pipeline.debug.doctor.report import LAWS, Report, Row
from pipeline.debug.doctor.verdicts import judged
from pipeline.errors import ChainError

__all__ = ["LAWS", "DoctorError", "Report", "Row", "examine"]


def examine(
    factory: str,
    *,
    workers: Sequence[int] = (0, 2),
    hosts: Sequence[int] = (1, 2, 4),
    key: str | None = None,
    batches: int = 60,
    shuffled: bool = False,
    seed: int = 0,
    seconds: float = 60.0,
    tell: Callable[[str], None] = lambda words: None,
) -> Report:
    """Which laws a loader keeps.

    Args:
        factory: "module:name" of a function that makes a loader anew each time. It is given those
            of `workers`, `host` and `hosts` that its signature names. It returns an iterable, with
            or without a state; (Trainer, module) of Lightning, or with a data module or loader as
            a third; or (Accelerator, loader).
        workers: counts to compare; the first is that of all other runs.
        hosts: counts to compare with one.
        key: a field that names records; by default rows are compared by digest.
        batches: how many an uninterrupted run takes, at least; it goes on to a second pass.
        shuffled: whether passes should have different orders.
        seed: chooses where runs are cut.
        seconds: after so many a run hangs, and is ended; sooner where the first was quick.
        tell: is told what is done now.

    Raises:
        ChainError: there is no such factory, field or count.
        DoctorError: the loader fails by itself.
    """
    for count in workers:
        whole("workers", count, 0)
    for count in hosts:
        whole("hosts", count, 1)
    if not workers or not hosts:
        raise ChainError("--workers and --hosts want one count at least, as in 0,2")
    whole("batches", batches, 2)
    if not seconds > 0:
        raise ChainError(f"{seconds=}: give a number above 0")
    options = Options(workers, hosts, key, batches, shuffled, seed, seconds)
    launcher = Launcher(factory)
    try:
        return judged(examined(launcher, options, tell))
    finally:
        launcher.close()
