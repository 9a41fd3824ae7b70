"""Arguments that several commands share: "module:name", paths, storage options, runs."""

from __future__ import annotations

import argparse
import inspect
import math
import os
import sys
from pathlib import Path
from typing import Any

from pipeline.dataset import Dataset
from pipeline.debug.journal import Run
from pipeline.debug.journal.naming import importable_outside
from pipeline.debug.named import imported
from pipeline.errors import ChainError, JournalError
from pipeline.loader import Loader
from pipeline.sources import SUFFIXES, Storage, open_path


def loadable(name: str, *, here: bool = True, folder: Path | None = None) -> Dataset | Loader:
    """The Dataset or Loader called "module:name", or returned by the function of that name.

    If the function has a parameter, it gets the folder of the run in question.

    Args:
        name: "module:name".
        here: whether modules of the current directory may be imported.
        folder: of the run in question.

    Raises:
        ChainError: it is none of these.
    """
    found = imported(name, here=here)
    if callable(found):
        takes = folder is not None and bool(inspect.signature(found).parameters)
        found = found(folder) if takes else found()
    if not isinstance(found, Dataset | Loader):
        raise ChainError(
            f"{name} is of the type {type(found).__name__}: name a Dataset, a Loader, or a "
            "function that returns one"
        )
    return found


def dataset(name: str, storage: Storage | None = None) -> Dataset:
    """The Dataset called "module:name", or the one of a path, URL or glob.

    Raises:
        ChainError: it is a Loader, or does not exist.
        SourceError: a file does not exist.
    """
    found = path_or_dataset(name)
    return found if isinstance(found, Dataset) else Dataset(open_path(found, storage=storage))


def path_or_dataset(name: str) -> str | Dataset:
    """The Dataset called "module:name"; or `name` itself if it is a path, URL or glob.

    Raises:
        ChainError: it is a Loader, or does not exist.
    """
    module, colon, attribute = name.partition(":")
    if not all(map(str.isidentifier, module.split("."))):
        return name
    if not attribute.isidentifier():
        if (colon and attribute) or os.path.exists(name) or name.endswith(tuple(SUFFIXES)):
            return name
        raise ChainError(
            f"{name!r} is no path here; of a module name the dataset too: {module}:dataset"
        )
    found = loadable(name)
    if isinstance(found, Loader):
        raise ChainError(f"{name} is a Loader: name the Dataset that it loads")
    return found


def storage_arguments(p: argparse.ArgumentParser) -> None:
    """Add `--option` and `--deadline`, which `storage` reads."""
    p.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="of a URL's filesystem, as token=anon; may come several times",
    )
    p.add_argument("--deadline", type=float, help="seconds for one request, all tries included")


def storage(args: argparse.Namespace) -> Storage:
    """The storage that the options describe.

    Raises:
        ChainError: an option is not KEY=VALUE.
        SourceError: the deadline is invalid.
    """
    options: dict[str, Any] = {}
    for text in args.option:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise ChainError(f"--option {text}: write it as KEY=VALUE, as in token=anon")
        options[key] = {"true": True, "false": False}.get(value.lower(), value)
    limits = {} if args.deadline is None else {"deadline": args.deadline}
    return Storage(options=options, **limits)


def workers(text: str) -> int | str:
    """The value of `--workers`: a number, or "auto"."""
    return int(text) if text.isdecimal() else text


def number_from_1(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1 on")
    return int(text)


def seconds(text: str) -> float:
    """The value of `--seconds`: above 0.

    >>> seconds("0")
    Traceback (most recent call last):
    argparse.ArgumentTypeError: '0': give a number of seconds above 0, such as 2.5
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of seconds above 0, such as 2.5")
    return value


def run_argument(p: argparse.ArgumentParser) -> None:
    """Add `RUN`, a run's folder."""
    p.add_argument("run_folder", metavar="RUN", help="a run's folder: it holds ledger.jsonl")


def data_argument(p: argparse.ArgumentParser, *, many: bool = False) -> None:
    """Add `--data`, the dataset of a run, which `run_dataset` reads."""
    each = "; twice, one for each run" if many else ""
    p.add_argument(
        "--data",
        metavar="MODULE:NAME",
        action="append" if many else "store",
        help=f"the run's Dataset or Loader, or a function that returns one{each}",
    )


def run_dataset(run: Run, given: str | None) -> Dataset | None:
    """The dataset of a run: as given, else by the name that the run recorded; or None.

    Raises:
        ChainError: there is no dataset of that name.
        JournalError: a recorded name would be imported from the run's own folder.
    """
    name = given or run.data
    if name is None:
        return None
    inside = run.folder.resolve() in (here := Path.cwd().resolve(), *here.parents)
    if given is None:
        print(f"data: {name}, as {run.folder} noted it", file=sys.stderr)
        if not inside and str(here) not in sys.path:
            sys.path.insert(0, str(here))
        importable_outside(name, run.folder)
    found = loadable(name, here=given is not None or not inside, folder=run.folder)
    return found if isinstance(found, Dataset) else found._dataset


def needed_dataset(run: Run, given: str | None) -> Dataset:
    """The dataset of a run, as for `run_dataset`.

    Raises:
        JournalError: no name is given or recorded.
    """
    found = run_dataset(run, given)
    if found is None:
        if (last := run.ledger.last) is not None:
            run.proves(last)  # says so where what the run noted was lost
        raise JournalError(
            f"{run.folder} noted no name of its dataset (one in __main__ is not kept). Give "
            '--data module:name here, or Journal(…, data="module:name") in the loop.'
        )
    return found


def output_file(text: str) -> Path:
    """What `-o`, `--html` and the like take: a file that can be written, or argparse tells at once.

    >>> output_file("a/b.html")
    Traceback (most recent call last):
    argparse.ArgumentTypeError: a/b.html: there is no folder 'a': make it, or give another path
    """
    path = Path(text)
    problem = ""
    if path.is_dir():
        problem = "is a folder: give the name of a file"
    elif not path.parent.is_dir():
        problem = f"there is no folder {str(path.parent)!r}: make it, or give another path"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        problem = "may not be written: give another path"
    if problem:
        raise argparse.ArgumentTypeError(f"{text}: {problem}")
    return path


def step_range(text: str) -> range:
    """The value of `--steps a:b`.

    >>> step_range("40:60")
    range(40, 60)
    """
    start, colon, stop = text.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise argparse.ArgumentTypeError(f"{text!r}: give first:end, such as 40:60 for 40 to 59")
    return range(int(start), int(stop))
