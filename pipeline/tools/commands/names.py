"""What "module:name" names on a command line."""

from __future__ import annotations

import argparse
import os
from typing import Any

from pipeline.dataset import Dataset
from pipeline.debug.named import imported
from pipeline.errors import ChainError
from pipeline.loader import Loader
from pipeline.sources import SUFFIXES, Storage, open_path


def loadable(name: str) -> Dataset | Loader:
    """The Dataset or Loader that "module:name" names, or that a function of that name returns.

    Raises:
        ChainError: it names neither.
    """
    found = imported(name)
    found = found() if callable(found) else found
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
