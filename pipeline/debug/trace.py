"""Traces for Perfetto: who did what when, a lane for each worker, arrows from works to batches."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any

from pipeline.loader import Loader
from pipeline.nodes import Part
from pipeline.sources.storage.atomic import written_whole
from pipeline.workers import Workers
from pipeline.workers.stats import Worked

MOST = 1_000_000  # events that are kept: the first ones
_LOOP = 0  # the lane of the loop; worker i has lane i + 1


class Trace:
    """The works and batches of a traced loader, to be viewed in ui.perfetto.dev.

    A worker's lane shows each work, and within it the total time of each stage, one after the
    other. The loop's lane shows each wait for a batch, with arrows from the works whose results
    were fetched during it, for this batch or for ones made ahead.

    >>> from pipeline import Dataset, Threads
    >>> trace = Trace()
    >>> with trace.of(Loader(Dataset(range(8)), 4, workers=Threads(1))) as loader:
    ...     for batch in trace.batches(loader):
    ...         pass
    >>> sorted({event["ph"] for event in trace.events()})
    ['M', 'X', 'f', 's']
    """

    def __init__(self) -> None:
        self._works: list[Worked] = []
        self._waits: list[tuple[int, float, float, list[int]]] = []
        self._fetched: list[int] = []
        self._begin = time.perf_counter()

    def of(self, loader: Loader) -> Loader:
        """A loader like this one, at step 0, whose workers are traced."""
        return loader.like(workers=_Traced(loader.workers, self))

    def batches(self, loader: Loader) -> Any:
        """The batches of a pass of a traced loader, as in `for batch in loader`."""
        it = iter(loader)
        while True:
            asked = time.perf_counter()
            self._fetched.clear()
            batch = next(it, None)
            if batch is None:
                return
            self.waited(loader.last_step or 0, asked)
            yield batch

    def waited(self, step: int, asked: float) -> None:
        """Record that a batch arrived. `asked` is when it was asked for (`time.perf_counter`)."""
        if len(self._waits) < MOST:
            self._waits.append((step, asked, time.perf_counter(), [*self._fetched]))

    def worked(self, worked: Worked) -> None:
        """Record that a work was evaluated."""
        if len(self._works) < MOST:
            self._works.append(worked)

    def fetched(self, number: int) -> None:
        """Record that the loop fetched a work's result, or a part of it."""
        self._fetched.append(number)

    # ---- the file

    def events(self) -> list[dict[str, Any]]:
        """Events in Chrome's trace format; times are in microseconds since the trace's creation."""
        works = {w.number: w for w in self._works if w.worker >= 0}
        lanes = sorted({w.worker for w in works.values()})
        found = [_named("process_name", _LOOP, "lockstep"), _named("thread_name", _LOOP, "loop")]
        found += [_named("thread_name", i + 1, f"worker {i}") for i in lanes]
        for work in self._works:
            found += self._work(work)
        arrows = 0
        for step, asked, got, fetched in self._waits:
            numbers = sorted(set(fetched))
            args = {"step": step, "works": numbers}
            found.append(self._slice(f"batch {step}", _LOOP, asked, got - asked, args))
            for number in numbers:
                if number in works:
                    found += self._arrow(arrows, works[number], asked, got)
                    arrows += 1
        return found

    def _work(self, work: Worked) -> list[dict[str, Any]]:
        lane, at = work.worker + 1, work.started
        args = {"work": work.number, "rows": max((t.rows for t in work.stages.values()), default=0)}
        found = [self._slice(f"work {work.number}", lane, at, work.seconds, args)]
        for stage, tally in work.stages.items():
            more = {"rows": tally.rows, "bytes": tally.bytes}
            found.append(self._slice(stage, lane, at, tally.seconds, more))
            at += tally.seconds
        return found

    def _slice(
        self, name: str, lane: int, start: float, seconds: float, args: dict[str, Any]
    ) -> dict[str, Any]:
        at = round((start - self._begin) * 1e6, 3)
        long = round(max(seconds, 0.0) * 1e6, 3)
        return {"ph": "X", "pid": 1, "tid": lane, "name": name, "ts": at, "dur": long, "args": args}

    def _arrow(self, number: int, work: Worked, asked: float, got: float) -> list[dict[str, Any]]:
        # from inside the work's slice to inside the wait's, and never back in time
        done = work.started + 0.999 * work.seconds
        ends = (
            ("s", work.worker + 1, done),
            ("f", _LOOP, max(min(done, got), asked + 0.999 * (got - asked))),
        )
        plain = {"pid": 1, "cat": "batch", "name": "batch", "id": number, "bp": "e"}
        return [
            {**plain, "ph": ph, "tid": lane, "ts": round((at - self._begin) * 1e6, 3)}
            for ph, lane, at in ends
        ]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as JSON, for ui.perfetto.dev and chrome://tracing."""
        data = {"displayTimeUnit": "ms", "traceEvents": self.events()}
        with written_whole(path) as f:
            f.write(json.dumps(data).encode())


def _named(what: str, lane: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": 1, "tid": lane, "name": what, "args": {"name": name}}


@dataclass(frozen=True)
class _Traced:
    # workers that report their works to a trace
    workers: Workers
    trace: Trace

    def open(self, chain: Part, *, ahead: int, stack: bool) -> Any:
        executor: Any = self.workers.open(chain, ahead=ahead, stack=stack)
        executor.watch = self.trace.worked
        return _Executor(executor, self.trace)


class _Executor:
    # an executor that reports which results are fetched
    def __init__(self, inner: Any, trace: Trace) -> None:
        self._inner, self._trace = inner, trace

    def submit(self, work: Any, *, urgent: bool = False) -> Any:
        return _Pending(self._inner.submit(work, urgent=urgent), self._trace)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Pending:
    def __init__(self, inner: Any, trace: Trace) -> None:
        self._inner, self._trace = inner, trace

    def result(self) -> Any:
        found = self._inner.result()
        self._trace.fetched(getattr(self._inner, "number", -1))
        return found

    def cancel(self) -> None:
        self._inner.cancel()
