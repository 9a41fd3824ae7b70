"""How fast a loader is, and how fast it would be: each measured by running it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline.loader import Loader
from pipeline.workers.stats import Stats

Step = Callable[[Any], Any] | float
"""What the loop does with a batch: a function of it, or seconds that it takes."""

_PATIENCE = 20.0  # seconds for workers to start
_WARM = 0.25  # of the time, in which workers fill their queue and nothing is counted


class Run(NamedTuple):
    """A loader that ran for some time.

    Attributes:
        rate: rows a second.
        stats: the loader's.
    """

    rate: float
    stats: Stats


def run(loader: Loader, seconds: float, step: Step | None = None, *, one_pass: bool = False) -> Run:
    """Run a loader, pass after pass, for some seconds from its first batch on, and close it.

    Args:
        loader: stands anywhere.
        seconds: the first quarter of them is not counted.
        step: what the loop does with each batch.
        one_pass: end with the pass, if that is earlier.
    """
    use = used(step)
    with loader:
        if not _begun(loader, use):
            return Run(0.0, loader.stats())
        begin = time.perf_counter()
        counted, started = loader.stats().rows, begin
        epoch = loader.epoch
        while (now := time.perf_counter()) < begin + seconds:
            if one_pass and loader.epoch != epoch:
                break
            if started == begin and now > begin + _WARM * seconds:
                counted, started = loader.stats().rows, now
            if not _next(loader, use):
                break
        stats, spent = loader.stats(), time.perf_counter() - started
    return Run((stats.rows - counted) / spent if spent > 0 else 0.0, stats)


def _begun(loader: Loader, use: Callable[[Any], Any]) -> bool:
    # past the first batch; and until workers work, as the loop helps out while they start
    late = time.perf_counter() + _PATIENCE
    found = _next(loader, use)
    while found and loader.stats().workers and not loader.stats().busy:
        if time.perf_counter() > late:
            break
        found = _next(loader, use)
    return found


def _next(loader: Loader, use: Callable[[Any], Any]) -> bool:
    batch = next(loader, None)
    if batch is None:
        return False
    use(batch)
    return True


def used(step: Step | None) -> Callable[[Any], Any]:
    """What the loop does, as a function of a batch."""
    if step is None:
        return lambda batch: None
    return step if callable(step) else lambda batch: time.sleep(step)
