"""When a run was trained on records, by its journal: start after start, less what it skipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.dataset import Dataset
from pipeline.debug.find import line_at, stretches
from pipeline.debug.journal import Run
from pipeline.debug.journal.line import Line
from pipeline.debug.journal.reading import data_steps
from pipeline.debug.seen.steps import Occurrence, Record, occurrences


def check_run(run: Run, dataset: Dataset) -> None:
    """Refuse a dataset that is not the one of all steps: about those nothing could be said.

    Raises:
        MismatchError, JournalError: see `Run.check`.
    """
    for first, _ in stretches(run):
        run.check(dataset, first)


def in_run(
    run: Run, dataset: Dataset, records: Sequence[Record], most: int
) -> dict[int, list[Occurrence]]:
    """The training steps of a run whose batches held any of some records; of the first, which rows.

    Rows are counted over all batches of a step. Steps that the run went back over do not count.

    Args:
        run, dataset: to look in.
        records: of which components and which numbers.
        most: data steps of which rows are wanted, of each start of the run.

    Raises:
        MismatchError, JournalError: the dataset is not the run's; see `Run.check`.
    """
    found = dict[int, list[Occurrence]]()
    for first, last in stretches(run):
        loader = run.loader(dataset, first)
        within, states = range(first.data_step, last.data_end), run.states(first, last)
        for step, places in occurrences(loader, records, within, states, most).items():
            line = line_at(run, first, last, step)
            before = _rows_before(run, dataset, line, step) if line is not None else None
            if line is not None and before is not None:  # else it was skipped
                found.setdefault(line.step, []).extend(
                    replace(o, step=line.step, row=o.row + before) for o in places
                )
    return dict(sorted(found.items()))


def _rows_before(run: Run, dataset: Dataset, line: Line, step: int) -> int | None:
    # rows of a line's batches before that of a data step; None if that is none of them
    loader = run.loader(dataset, line)  # that which looked for records may stand behind it
    batches = data_steps(loader, line)
    if step not in batches:
        return None
    return sum(len(loader.where(s)) for s in batches[: batches.index(step)])
