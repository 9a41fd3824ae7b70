"""python -m pipeline replay RUN --steps A:B: make batches again and compare with the journal."""

from __future__ import annotations

import argparse

from pipeline.debug.journal import Run
from pipeline.debug.replay import replay
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import data_argument, needed_dataset, run_argument, step_range

NAME, HELP = "replay", "make the batches of steps again; exit 1 if one is not that of the journal"


def arguments(p: argparse.ArgumentParser) -> None:
    run_argument(p)
    p.add_argument("--steps", type=step_range, required=True, metavar="A:B", help="A, ..., B-1")
    data_argument(p)


def run(args: argparse.Namespace) -> Answer:
    found = Run(args.run_folder)
    proof = replay(found, needed_dataset(found, args.data), args.steps)
    return Answer(proof.as_json(), proof.lines(), proof.ok)
