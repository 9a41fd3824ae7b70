"""python -m pipeline manifest PATH: store record counts beside files, for a fast start."""

from __future__ import annotations

import argparse

from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import path_or_dataset, storage, storage_arguments
from pipeline.tools.inspection import check_manifest, write_manifest

NAME, HELP = "manifest", "note record counts beside files: thousands start from one listing"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("data", metavar="PATH", help="a path, URL or glob, or module:name of a Dataset")
    p.add_argument("--check", action="store_true", help="write nothing; exit 1 if it is not whole")
    storage_arguments(p)


def run(args: argparse.Namespace) -> Answer:
    act = check_manifest if args.check else write_manifest
    found = act(path_or_dataset(args.data), storage=storage(args))
    return Answer(found.as_json(), found.lines(), found.ok)
