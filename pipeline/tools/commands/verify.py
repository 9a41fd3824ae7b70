"""python -m pipeline verify PATH: reads every record, names those that are bad; 1 if any is."""

from __future__ import annotations

import argparse
import json

from pipeline.tools.commands.names import path_or_dataset, storage, storage_arguments, workers
from pipeline.tools.inspection import verify
from pipeline.tools.inspection.show import verified

NAME, HELP = "verify", "can every record be read? names those that cannot"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("data", metavar="PATH", help="a path, URL or glob, or module:name of a Dataset")
    p.add_argument("--workers", type=workers, default="auto", help="0, n processes or auto")
    p.add_argument("--json", action="store_true", help="for programs")
    storage_arguments(p)


def run(args: argparse.Namespace) -> int:
    data = path_or_dataset(args.data)
    found = verify(data, workers=args.workers, storage=storage(args))
    if args.json:
        print(json.dumps(found.as_json()))
    else:
        print(*verified(found), sep="\n")
    return 0 if found.ok else 1
