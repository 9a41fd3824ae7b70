"""Statistics of stages, workers and the queue, as frozen values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pipeline.meter import Tally, add_up
from pipeline.picture import escaped, table


@dataclass(frozen=True, slots=True)
class StageStats:
    """What one stage has done, summed over all workers.

    Attributes:
        name: "source", or as in errors: "stage 3: map 'tokenize'".
        rows: rows that it returned.
        bytes: bytes of these rows if cheap to know (columns, bytes records), else 0.
        seconds: time spent in this stage alone.
    """

    name: str
    rows: int
    bytes: int
    seconds: float


class Worked(NamedTuple):
    """One work that was evaluated.

    Attributes:
        number: of the work, in its queue.
        worker: its number; -1 if the loop itself evaluated.
        started: `time.perf_counter`, one clock for all processes of a machine.
        seconds: how long it took.
        stages: sums by stage.
    """

    number: int
    worker: int
    started: float
    seconds: float
    stages: Mapping[str, Tally]


Watch = Callable[[Worked], None]


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The statistics of an executor.

    Attributes:
        workers: threads or processes; 0 if the caller evaluates.
        stages: sums by stage.
        works: works done.
        busy: seconds that workers spent evaluating.
        wait: seconds that the caller waited for results.
        occupancy: the share of the workers' time that was busy.
        ready: results that wait to be fetched.
        ready_bytes: bytes of these.
        asked: works submitted and not done.
        restarts: workers replaced.
        tried: for `workers="auto"`: what was tried, and rows a second that reached the loop.
        choice: what was chosen; "" until then.
    """

    workers: int = 0
    stages: Mapping[str, Tally] | None = None
    works: int = 0
    busy: float = 0.0
    wait: float = 0.0
    occupancy: float = 0.0
    ready: int = 0
    ready_bytes: int = 0
    asked: int = 0
    restarts: int = 0
    tried: Mapping[str, float] = field(default_factory=dict[str, float])
    choice: str = ""


def summed(one: QueueStats, other: QueueStats) -> QueueStats:
    """The statistics of `one` executor, with what the works of another have cost."""
    stages = dict(one.stages or {})
    add_up(stages, other.stages or {})
    return replace(
        one,
        stages=stages,
        works=one.works + other.works,
        busy=one.busy + other.busy,
        wait=one.wait + other.wait,
        restarts=one.restarts + other.restarts,
    )


@dataclass(frozen=True, slots=True)
class Stats:
    """What a loader's data has cost since the loader was made; cheap, and exact across processes.

    It prints as a table of its stages.

    Attributes:
        stages: from the source up, a join's parts before itself; then "collate", and "feed", which
            puts batches onto devices.
        batches: batches handed out.
        rows: rows of these, on this host.
        bytes: bytes of these.
        seconds: since the first batch was asked for, without those between the end of a `for` and
            the next batch, and those for which it was closed.
        first: seconds until that batch arrived.
        wait: seconds that the loop waited in `next`, including the first batch.
        workers: threads or processes; 0 if the loop evaluates.
        busy: seconds spent evaluating, by workers, and by the loop where it helps them.
        occupancy: the share of the workers' time that was busy. Near 1, workers are the limit.
        ready, ready_bytes: results that wait to be fetched.
        asked: works begun or queued.
        ahead: bytes of results that may wait.
        restarts: workers replaced.
        works: works that workers have done; 0 until they have begun.
        tried: for `workers="auto"`: what was tried, and rows a second that reached the loop.
        choice: what was chosen; "" until then, or if it was not asked for.
    """

    stages: tuple[StageStats, ...]
    batches: int
    rows: int
    bytes: int
    seconds: float
    first: float
    wait: float
    workers: int
    busy: float
    occupancy: float
    ready: int
    ready_bytes: int
    asked: int
    ahead: int
    restarts: int
    works: int = 0
    tried: Mapping[str, float] = field(default_factory=dict[str, float])
    choice: str = ""

    @property
    def limit(self) -> str:
        """What to make faster: "the loop", or the stage that takes most time.

        It is the loop if after the first batch it waits for less than a tenth of the time.
        """
        waited = self.wait - self.first
        if 0 < waited < 0.1 * (self.seconds - self.first):
            return "the loop"
        busy = [stage for stage in self.stages if stage.seconds]
        return max(busy, key=lambda s: s.seconds).name if busy else "nothing yet"

    def __repr__(self) -> str:
        return "\n".join(self.table(self.limit))

    def _repr_html_(self) -> str:
        titles = ("stage", "rows", "MB", "seconds")
        rows = [
            (s.name, f"{s.rows:,}", f"{s.bytes / 1e6:,.1f}", f"{s.seconds:.3f}")
            for s in self.stages
        ]
        return f"{table(titles, rows)}<p>{escaped([*self.table(self.limit)][len(rows) + 1])}</p>"

    def prometheus(self, **labels: str) -> str:
        """The statistics in Prometheus' text format, for a page that it scrapes.

        Args:
            labels: labels of every metric, such as run="a".

        >>> from pipeline import Dataset, Loader
        >>> loader = Loader(Dataset(range(4)), 2)
        >>> _ = list(loader)
        >>> print(loader.stats().prometheus(run="a").splitlines()[1])
        lockstep_batches_total{run="a"} 2
        """
        return "".join(_metrics(self, labels))

    def table(self, limit: str) -> Iterator[str]:
        """Lines of a table: one for each stage, and the limit, which callers may know better."""
        return _table(self, limit)


_TOTALS = {
    "batches": "batches",
    "rows": "rows",
    "bytes": "bytes",
    "wait": "wait_seconds",
    "busy": "busy_seconds",
    "restarts": "restarts",
}
_GAUGES = ("workers", "occupancy", "ready", "ready_bytes", "asked")


def _metrics(stats: Stats, labels: Mapping[str, str]) -> Iterator[str]:
    for known, name in _TOTALS.items():
        yield from _metric(f"{name}_total", "counter", [({}, getattr(stats, known))], labels)
    for name in _GAUGES:
        yield from _metric(name, "gauge", [({}, getattr(stats, name))], labels)
    for name in ("rows", "bytes", "seconds"):
        values = [({"stage": s.name}, getattr(s, name)) for s in stats.stages]
        yield from _metric(f"stage_{name}_total", "counter", values, labels)


def _metric(
    name: str,
    kind: str,
    values: Iterable[tuple[Mapping[str, str], float]],
    labels: Mapping[str, str],
) -> Iterator[str]:
    yield f"# TYPE lockstep_{name} {kind}\n"
    for own, value in values:
        text = ",".join(f'{k}="{_quoted(v)}"' for k, v in {**labels, **own}.items())
        yield f"lockstep_{name}{f'{{{text}}}' if text else ''} {value}\n"


def _quoted(text: str) -> str:
    return str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _table(stats: Stats, limit: str) -> Iterator[str]:
    total = sum(stage.seconds for stage in stats.stages) or 1.0
    names = [s.name + ("  <- the limit" if s.name == limit else "") for s in stats.stages]
    width = max(map(len, [*names, "stage"]))
    yield f"{'stage':{width}} {'rows':>12} {'MB':>10} {'seconds':>9} {'share':>6} {'µs a row':>9}"
    for name, stage in zip(names, stats.stages, strict=True):
        size = f"{stage.bytes / 1e6:,.1f}" if stage.bytes else ""
        each = f"{stage.seconds / stage.rows * 1e6:.1f}" if stage.rows else ""
        spent = f"{stage.seconds:>9.3f} {stage.seconds / total:>6.0%}"
        yield f"{name:{width}} {stage.rows:>12,} {size:>10} {spent} {each:>9}"
    rate = stats.rows / stats.seconds if stats.seconds else 0.0
    yield (f"{stats.rows:,} rows in {stats.seconds:.2f} s: {rate:,.0f} rows/s. Limit: {limit}.")
    if stats.tried:
        found = ", ".join(f"{who} {pace:,.0f} rows/s" for who, pace in stats.tried.items())
        yield f"Tried: {found}. Chosen: {stats.choice or 'not yet'}."
    if stats.workers:
        yield (
            f"{stats.workers} workers, busy {stats.occupancy:.0%}, {stats.restarts} replaced; "
            f"{stats.ready} results ({stats.ready_bytes / 1e6:.1f} MB) ready."
        )
