"""python -m pipeline diff RUN RUN: where two runs differ, batches and losses. Exit 1 if they do."""

from __future__ import annotations

import argparse

from pipeline.debug.diff import diff
from pipeline.debug.journal import Run
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import data_argument
from pipeline.tools.commands.same import compared

NAME, HELP = "diff", "where two runs differ: batches, losses, datasets, settings; exit 1 if they do"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("runs", nargs=2, metavar="RUN", help="a run's folder")
    data_argument(p, many=True)


def run(args: argparse.Namespace) -> Answer:
    one, other = Run(args.runs[0]), Run(args.runs[1])
    equal, lines, data = diff(one, other, compared(one, other, args.data or []))
    return Answer(data, lines, equal)
