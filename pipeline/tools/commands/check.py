"""python -m pipeline check module:dataset: is it pure, and can workers run it? Exit 1 if not."""

from __future__ import annotations

import argparse

from pipeline.debug.conformance import examine
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import dataset

NAME, HELP = "check", "evaluate some rows several times: names stages that are impure or unfit"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("data", help="module:name of a Dataset or a function returning one; or a path")
    p.add_argument("--samples", type=int, default=32, help="rows to evaluate (32)")
    p.add_argument("--seed", type=int, default=0, help="chooses them (0)")


def run(args: argparse.Namespace) -> Answer:
    report = examine(dataset(args.data), samples=args.samples, seed=args.seed)
    return Answer(report.as_json(), str(report).splitlines(), report.ok)
