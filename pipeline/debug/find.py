"""Finding the training steps of a run in which a record appeared."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from pipeline.dataset import Dataset
from pipeline.debug.journal.line import Line
from pipeline.debug.journal.reading import Run, data_steps
from pipeline.errors import PositionError


def steps_of(run: Run, dataset: Dataset, record: Any, within: range | None = None) -> list[int]:
    """The steps whose batches held a record, of those that led to the run's current state.

    For an indexed dataset they are computed; for a streamed one the steps are evaluated again.

    Args:
        run, dataset: where to look.
        record: as for `Loader.find`: a number, (component, number) or (file, number).
        within: training steps to search; by default all.

    Raises:
        PositionError: there is no such record.
        MismatchError, JournalError: the dataset is not the run's, see `Run.check`; or the run has
            no such steps.
    """
    steps = within or run.ledger.steps
    found: list[int] = []
    for first, last in stretches(run, steps):
        loader = run.loader(dataset, first)
        hits = loader.find(record, within=range(first.data_step, last.data_end))
        for hit in hits:
            line = line_at(run, first, last, hit)
            if line is not None and hit in data_steps(loader, line):  # else it was skipped
                found.append(line.step)
    return sorted(set(found))


def stretches(run: Run, steps: range) -> Iterator[tuple[Line, Line]]:
    """The first and last line of each launch, of the steps that led to the run's current state."""
    for step in (steps.start, steps.stop - 1) if steps else ():
        run.line(step)  # says which steps there are
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


def line_at(run: Run, first: Line, last: Line, data_step: int) -> Line | None:
    """The line between `first` and `last` whose batches may include a data step; None if none."""

    def end(step: int) -> int:
        line = run.ledger.before(step + 1)
        return line.data_end if line else -1

    steps = range(first.step, last.step + 1)
    at = bisect_right(steps, data_step, key=end)
    return run.ledger.before(steps[at] + 1) if at < len(steps) else None
