"""What "module:name" names on a command line."""

from __future__ import annotations

import argparse
import inspect
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
    """The Dataset or Loader that "module:name" names, or that a function of that name returns.

    A function that takes an argument gets the folder of the run that is asked about.

    Raises:
        ChainError: it names neither.
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
    """The Dataset that "module:name" names, or that of a path, URL or glob.

    Raises:
        ChainError: it names a Loader, or nothing.
        SourceError: no such file.
    """
    found = path_or_dataset(name)
    return found if isinstance(found, Dataset) else Dataset(open_path(found, storage=storage))


def path_or_dataset(name: str) -> str | Dataset:
    """The Dataset that "module:name" names, or the path, URL or glob that it is itself.

    Raises:
        ChainError: it names a Loader, or nothing.
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
    """`--option` and `--deadline`, which `storage` understands."""
    p.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="of a URL's filesystem, as token=anon; may come several times",
    )
    p.add_argument("--deadline", type=float, help="seconds for one request, all tries included")


def storage(args: argparse.Namespace) -> Storage:
    """How URLs are reached.

    Raises:
        ChainError: an option is not KEY=VALUE.
        SourceError: the deadline has no meaning.
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
    """What `--workers` takes: a number, or "auto"."""
    return int(text) if text.isdecimal() else text


def run_argument(p: argparse.ArgumentParser) -> None:
    """`RUN`, a run's folder."""
    p.add_argument("run_folder", metavar="RUN", help="a run's folder: it holds ledger.jsonl")


def data_argument(p: argparse.ArgumentParser, *, many: bool = False) -> None:
    """`--data`, the dataset of a run, which `run_dataset` understands."""
    each = "; twice, one for each run" if many else ""
    p.add_argument(
        "--data",
        metavar="MODULE:NAME",
        action="append" if many else "store",
        help=f"the run's Dataset or Loader, or a function that returns one{each}",
    )


def run_dataset(run: Run, given: str | None) -> Dataset | None:
    """The dataset of a run: as given, else under the name that the run noted; None if neither.

    Raises:
        ChainError: the name names none.
        JournalError: a noted name would be imported from the run's own folder.
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
    """The dataset of a run, as `run_dataset` finds it.

    Raises:
        JournalError: there is no name of it.
    """
    found = run_dataset(run, given)
    if found is None:
        raise JournalError(
            f"{run.folder} noted no name of its dataset (one in __main__ is not kept). Give "
            '--data module:name here, or Journal(…, data="module:name") in the loop.'
        )
    return found


def output_file(text: str) -> Path:
    """What `-o`, `--html` and the like take: a file that can be written, or argparse tells at once.

    >>> output_file("no such folder/page.html")
    Traceback (most recent call last):
        ...
    argparse.ArgumentTypeError: no such folder/page.html: there is no folder 'no such folder'...
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
    """What `--steps a:b` takes.

    >>> step_range("40:60")
    range(40, 60)
    """
    start, colon, stop = text.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise argparse.ArgumentTypeError(f"{text!r}: give first:end, such as 40:60 for 40 to 59")
    return range(int(start), int(stop))
