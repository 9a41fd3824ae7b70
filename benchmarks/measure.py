"""How workloads are measured: competitors in turn, some rounds of each, medians and spread."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple

Attempt = Callable[[], float]  # one measured run: its figure in the workload's unit
LONGEST = 1.5  # seconds of one run, so that all of them together end soon
STARTED = 1.5  # seconds in which worker processes come up, ours and those of peers


@dataclass(frozen=True)
class Workload:
    """One question about speed, and who answers it.

    Attributes:
        name: a word or two.
        question: what is measured, in a sentence.
        unit: of the figures: "rows/s", "ms", "MB".
        runs: whom to measure: ours under names that begin with "lockstep", peers under theirs, and
            "limit": what the machine or the user's own function allows.
        aims: least ratio of one of ours to another run, by (ours, other).
        less: whether less is better.
    """

    name: str
    question: str
    unit: str
    runs: Mapping[str, Attempt]
    aims: Mapping[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])
    less: bool = False


class Figure(NamedTuple):
    """Median, least and most of some rounds."""

    median: float
    least: float
    most: float


def measured(workload: Workload, rounds: int) -> dict[str, Figure]:
    """Each run in turn, round after round, so that a busy moment of the machine meets them all."""
    found: dict[str, list[float]] = {name: [] for name in workload.runs}
    for turn in range(rounds + 1):
        for name, attempt in workload.runs.items():
            figure = attempt()
            if turn:  # the first warms what there is to warm
                found[name].append(figure)
    return {n: Figure(statistics.median(f), min(f), max(f)) for n, f in found.items()}


def ratios(workload: Workload, figures: Mapping[str, Figure]) -> dict[str, dict[str, float]]:
    """How many times better each of ours is than each other run."""
    ours = [name for name in figures if name.startswith("lockstep")]
    found: dict[str, dict[str, float]] = {}
    for mine in ours:
        others = [name for name in figures if name not in ours]
        found[mine] = {o: _better(workload, figures[mine], figures[o]) for o in others}
    return found


def _better(workload: Workload, mine: Figure, other: Figure) -> float:
    one, two = mine.median, other.median
    return (two / one if one else 0.0) if workload.less else (one / two if two else 0.0)


def rate(
    batches: Iterable[Any],
    rows: int,
    *,
    warm: int,
    most: int,
    longest: float | None = None,
    after: float = 0.0,
) -> float:
    """Rows a second of an iterable of batches of `rows` rows, once `warm` of them have come.

    Nor are those measured that come within `after` seconds: `STARTED` where processes are at work.

    `most` batches are measured, or those of `longest` seconds, by default `LONGEST`.
    """
    began, iterator = time.perf_counter(), iter(batches)
    for _ in range(warm):
        next(iterator)
    while time.perf_counter() - began < after:
        next(iterator)
    started, n = time.perf_counter(), 0
    for n, _ in enumerate(_first(iterator, most), 1):  # noqa: B007
        if time.perf_counter() - started > (LONGEST if longest is None else longest):
            break
    return n * rows / (time.perf_counter() - started)


def both(run: Attempt) -> float:
    """What two processes reach that share nothing: the sum of what each does meanwhile."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    beside = context.Process(target=lambda: theirs.send(run()))
    beside.start()
    found = run()
    found += ours.recv()
    beside.join()
    return found


def by_two_threads(run: Attempt) -> float:
    """What two threads reach that share nothing but the interpreter."""
    with ThreadPoolExecutor(2) as threads:
        return sum(threads.map(lambda _: run(), range(2)))


def installed(package: str) -> bool:
    """Whether a peer can be imported here."""
    try:
        import_module(package)
    except ImportError:
        return False
    return True


def milliseconds(call: Callable[[], Any]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def _first(iterator: Iterator[Any], most: int) -> Iterator[Any]:
    for _, item in zip(range(most), iterator, strict=False):
        yield item
