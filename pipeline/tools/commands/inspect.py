"""python -m pipeline inspect PATH[:N]: what files hold, their layout, and their first records."""

from __future__ import annotations

import argparse
import os

from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import path_or_dataset, storage, storage_arguments
from pipeline.tools.inspection import inspect

NAME, HELP = "inspect", "what files hold: records, fields, layout, advice; 1 if some are bad"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "data",
        metavar="PATH[:N]",
        help="a path, URL or glob, or module:name of a Dataset; and how many first records to show",
    )
    storage_arguments(p)


def run(args: argparse.Namespace) -> Answer:
    name, first = _counted(args.data)
    found = inspect(path_or_dataset(name), first=first, storage=storage(args))
    return Answer(found.as_json(), found.lines(), found.ok)


def _counted(text: str) -> tuple[str, int]:
    name, colon, number = text.rpartition(":")
    if not (colon and name and number.isdecimal()) or os.path.exists(text):
        return text, 0
    return name, int(number)
