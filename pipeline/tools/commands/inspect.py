"""python -m pipeline inspect PATH[:N]: what files hold, their layout, and first records."""

from __future__ import annotations

import argparse
import json
import os

from pipeline.errors import SourceError
from pipeline.tools.commands.names import path_or_dataset, storage, storage_arguments
from pipeline.tools.inspection import inspect
from pipeline.tools.inspection.show import inspected

NAME, HELP = "inspect", "what files hold: records, fields, layout, advice"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "data",
        metavar="PATH[:N]",
        help="a path, URL or glob, or module:name of a Dataset; and how many first records to show",
    )
    p.add_argument("--json", action="store_true", help="for programs")
    storage_arguments(p)


def run(args: argparse.Namespace) -> int:
    name, first = _counted(args.data)
    found = inspect(path_or_dataset(name), first=first, storage=storage(args))
    if not found.sources:
        raise SourceError(found.broken[0].error)
    if args.json:
        print(json.dumps(found.as_json()))
    else:
        print(*inspected(found), sep="\n")
    return 1 if found.broken else 0


def _counted(text: str) -> tuple[str, int]:
    name, colon, number = text.rpartition(":")
    if not (colon and name and number.isdecimal()) or os.path.exists(text):
        return text, 0
    return name, int(number)
