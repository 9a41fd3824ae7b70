"""How fast a loader is, and how fast it would be: each measured by running it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline.loader import Loader
from pipeline.workers.stats import Stats

Step = Callable[[Any], Any] | float
"""What the loop does with a batch: a function of it, or seconds that it takes."""

PATIENCE = 20.0  # seconds for workers to start
LONGEST = 6.0  # seconds for workers to come to a steady rate
FULL = 0.3  # seconds after which a queue that has not grown is full
STEADY = 1.5  # factor between the rates of two parts of a run up to which it is steady
_WARM = 0.25  # of the time, in which workers fill their queue and nothing is counted


class Run(NamedTuple):
    """A loader that ran for some time.

    Attributes:
        rate: rows a second.
        stats: the loader's.
        steady: whether the rate was about the same in the parts of that time.
    """

    rate: float
    stats: Stats
    steady: bool = True


class _Mark(NamedTuple):
    # how many rows had come, and when
    rows: int
    at: float


def run(loader: Loader, seconds: float, step: Step | None = None, *, one_pass: bool = False) -> Run:
    """Run a loader, pass after pass, for some seconds from its first batch on, and close it.

    Works of workers are small at first, and come in bursts. So with workers it goes on while the
    rate changes much, for `LONGEST` seconds at most.

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
        begin = _mark(loader)
        last, marks = loader.epoch if one_pass else None, [begin]
        parts = (_WARM, (1 + _WARM) / 2, 1.0)
        going = all(_until(loader, use, begin.at + p * seconds, last, marks) for p in parts)
        if not going:
            since = marks[min(1, len(marks) - 2)]
            return Run(_rate(since, marks[-1]), loader.stats())
        longest = begin.at + (0.0 if one_pass or not loader.stats().workers else LONGEST)
        while going and not _steady(marks) and marks[-1].at < longest:
            end = 2 * marks[-1].at - marks[-3].at
            going = _until(loader, use, end, last, marks)
        stats, steady = loader.stats(), one_pass or not longest > begin.at or _steady(marks)
    return Run(_rate(marks[-3], marks[-1]), stats, steady)


def _mark(loader: Loader) -> _Mark:
    return _Mark(loader.stats().rows, time.perf_counter())


def _until(
    loader: Loader, use: Callable[[Any], Any], end: float, epoch: int | None, marks: list[_Mark]
) -> bool:
    # go on to some time, and mark it; whether the loader, or its pass, did not end before
    going = True
    while going and time.perf_counter() < end:
        going = (epoch is None or loader.epoch == epoch) and _next(loader, use)
    marks.append(_mark(loader))
    return going


def _rate(one: _Mark, other: _Mark) -> float:
    spent = other.at - one.at
    return (other.rows - one.rows) / spent if spent > 0 else 0.0


def _steady(marks: list[_Mark]) -> bool:
    low, high = sorted((_rate(marks[-3], marks[-2]), _rate(marks[-2], marks[-1])))
    return high <= STEADY * low


def _begun(loader: Loader, use: Callable[[Any], Any]) -> bool:
    # past the first batch; with workers past their beginning, as the loop helps out meanwhile
    late = time.perf_counter() + PATIENCE
    found = _next(loader, use)
    while found and not works(loader) and time.perf_counter() < late:
        found = _next(loader, use)
    return _filled(loader, use) if found and loader.stats().workers else found


def _filled(loader: Loader, use: Callable[[Any], Any]) -> bool:
    # until the queue has not grown for a while: filling it, the loop gets few batches
    most, grown = 0, time.perf_counter()
    late = grown + LONGEST / 2
    while (now := time.perf_counter()) < min(late, grown + FULL):
        stats = loader.stats()
        if stats.asked + stats.ready > 1.05 * most:
            most, grown = stats.asked + stats.ready, now
        if not _next(loader, use):
            return False
    return True


def works(loader: Loader) -> bool:
    """Whether a loader's workers have begun, or it has none."""
    stats = loader.stats()
    return not stats.workers or stats.works > 0


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
