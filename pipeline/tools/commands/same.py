"""python -m pipeline same RUN RUN: did two runs train on the same batches? Exit 1 if not."""

from __future__ import annotations

import argparse

from pipeline.debug.diff import Comparison, compare
from pipeline.debug.journal import Run
from pipeline.errors import JournalError
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import data_argument, run_dataset

NAME, HELP = "same", "did two runs train on the same batches, whatever framework and hosts?"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("runs", nargs=2, metavar="RUN", help="a run's folder")
    data_argument(p, many=True)


def run(args: argparse.Namespace) -> Answer:
    found = compared(Run(args.runs[0]), Run(args.runs[1]), args.data or [])
    return Answer(found.as_json(), found.lines(), found.ok)


def compared(one: Run, other: Run, names: list[str]) -> Comparison:
    """The comparison of two runs. Datasets are opened only if batches differ."""
    if len(names) > 2:
        raise JournalError(f"--data was given {len(names)} times: give it once for each run.")
    given = [*names, *names] if len(names) == 1 else [*names, None, None]
    return compare(one, other, lambda: (run_dataset(one, given[0]), run_dataset(other, given[1])))
