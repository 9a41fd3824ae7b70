"""In which training steps of a run a record appeared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.dataset import Dataset
from pipeline.debug.journal.ledger import Line
from pipeline.debug.journal.reading import Run, data_steps
from pipeline.errors import PositionError


def steps_of(run: Run, dataset: Dataset, record: Any, within: range | None = None) -> list[int]:
    """Training steps whose batches held a record, of those that led to where the run stands.

    Of an indexed dataset arithmetic tells; of others the steps are evaluated again.

    Args:
        run, dataset: to look in.
        record: as `Loader.find` takes it: a number, (component, number) or (file, number).
        within: training steps to look at; by default all.

    Raises:
        PositionError: there is no such record.
        MismatchError, JournalError: the dataset is not the run's; see `Run.check`.
    """
    steps = within or run.ledger.steps
    found: list[int] = []
    for first, last in _stretches(run, steps):
        loader = run.loader(dataset, first)
        hits = loader.find(record, within=range(first.data_step, last.data_end))
        for hit in hits:
            line = _line_at(run, hit)
            if line is None or not first.step <= line.step <= last.step:
                continue  # skipped, or of a step that the run went back over
            if hit in data_steps(loader, line):
                found.append(line.step)
    return sorted(set(found))


def _stretches(run: Run, steps: range) -> Iterator[tuple[Line, Line]]:
    # first and last line of each launch's part of the path
    starts: list[tuple[int, int]] = []  # first step, launch
    for launch in run.launches:
        step = launch.get("step", 0)
        starts = [s for s in starts if s[0] < step] + [(step, launch["launch"])]
    ends = [s for s, _ in starts[1:]] + [steps.stop]
    for (start, number), stop in zip(starts, ends, strict=True):
        low, high = max(start, steps.start), min(stop, steps.stop)
        if low >= high:
            continue
        first, last = run.ledger.latest(low), run.ledger.before(high)
        if first is None or last is None or first.launch != number:
            raise PositionError(
                f"steps {low:,} to {high - 1:,} of {run.folder} have no lines of launch {number}: "
                "give --steps that have."
            )
        yield first, last


def _line_at(run: Run, data_step: int) -> Line | None:
    # the line whose batches hold a data step
    line = run.ledger.ending_at(data_step + 1)
    if line is not None and line.data_end == data_step + 1:
        return line
    after = run.ledger.latest(0 if line is None else line.step + 1)
    return after if after and after.data_step <= data_step < after.data_end else None
