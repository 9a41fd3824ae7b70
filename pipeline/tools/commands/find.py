"""python -m pipeline find RUN RECORD: the steps in which a record appeared. Exit 1 if in none."""

from __future__ import annotations

import argparse
from typing import Any

from pipeline.debug.find import steps_of
from pipeline.debug.journal import Run
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import data_argument, needed_dataset, run_argument, step_range

NAME, HELP = "find", "the steps of a run in which a record appeared; exit 1 if in none"


def arguments(p: argparse.ArgumentParser) -> None:
    run_argument(p)
    p.add_argument("record", metavar="RECORD", help="number, component:number or file:number")
    p.add_argument("--steps", type=step_range, metavar="A:B", help="look only at these")
    data_argument(p)


def run(args: argparse.Namespace) -> Answer:
    found = Run(args.run_folder)
    steps = steps_of(found, needed_dataset(found, args.data), _record(args.record), args.steps)
    shown = ", ".join(f"{step:,}" for step in steps[:200])
    more = f" and {len(steps) - 200:,} more: --json lists all" if len(steps) > 200 else ""
    times = f"{len(steps):,} step{'' if len(steps) == 1 else 's'}"
    lines = [f"record {args.record}: in {times}: {shown}{more}" if steps else "in no step"]
    return Answer({"record": args.record, "steps": steps}, lines, bool(steps))


def _record(text: str) -> Any:
    name, colon, number = text.rpartition(":")
    if not number.isdecimal():
        raise ValueError(f"{text!r}: give a record's number, component:number or file:number")
    return (name, int(number)) if colon else int(number)
