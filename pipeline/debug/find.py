"""Finding the training steps of a run in which a record appeared."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any

from pipeline.dataset import Dataset
from pipeline.debug.journal.line import Line
from pipeline.debug.journal.reading import Run, data_steps


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
    found: list[int] = []
    for first, last in stretches(run, within):
        loader = run.loader(dataset, first)
        hits = loader.find(record, within=range(first.data_step, last.data_end))
        for hit in hits:
            line = line_at(run, first, last, hit)
            if line is not None and hit in data_steps(loader, line):  # else it was skipped
                found.append(line.step)
    return sorted(set(found))


def stretches(run: Run, within: range | None = None) -> Iterator[tuple[Line, Line]]:
    """The first and last line of each stretch of those that led to the run's current state.

    The lines of a stretch stand one after another in the ledger, and one loader gives the batches
    of all: it was neither moved nor made to leave something out between them.

    Args:
        run: whose.
        within: training steps, of which the first and the last must have a line; by default all.
    """
    for step in (within.start, within.stop - 1) if within else ():
        run.line(step)  # says which steps there are
    ledger, steps = run.ledger, within or run.steps
    for numbers in ledger.lineage.ranges:
        start = bisect_left(numbers, steps.start, key=lambda n: ledger.at(n).step)
        stop = bisect_left(numbers, steps.stop, key=lambda n: ledger.at(n).step)
        rest = numbers[start:stop]
        while rest:
            first = ledger.at(rest[0])
            here = run.loader_of(first)
            end = bisect_right(rest, here, key=lambda n: run.loader_of(ledger.at(n)))
            yield first, ledger.at(rest[end - 1])
            rest = rest[end:]


def line_at(run: Run, first: Line, last: Line, data_step: int) -> Line | None:
    """The line of a stretch whose batches may include a data step; None if none."""
    ledger, numbers = run.ledger, range(first.number, last.number + 1)
    at = bisect_right(numbers, data_step, key=lambda n: ledger.at(n).data_end)
    return ledger.at(numbers[at]) if at < len(numbers) else None
