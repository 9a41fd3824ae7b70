"""python -m pipeline verify PATH: read every record, name those that are bad. Exit 1 if any is."""

from __future__ import annotations

import argparse

from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import path_or_dataset, storage, storage_arguments, workers
from pipeline.tools.inspection import verify

NAME, HELP = "verify", "can every record be read? names those that cannot"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("data", metavar="PATH", help="a path, URL or glob, or module:name of a Dataset")
    p.add_argument("--workers", type=workers, default="auto", help="0, n processes or auto")
    storage_arguments(p)


def run(args: argparse.Namespace) -> Answer:
    found = verify(path_or_dataset(args.data), workers=args.workers, storage=storage(args))
    return Answer(found.as_json(), found.lines(), found.ok)
