"""What "module:name" names on a command line."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from pipeline.dataset import Dataset
from pipeline.errors import ChainError
from pipeline.loader import Loader


def imported(name: str) -> Any:
    """What "module:name" names, the working folder's modules included.

    Raises:
        ChainError: it is not written so, or there is no such module or name.

    >>> imported("math:floor")(2.5)
    2
    """
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ChainError(f"{name!r}: give module:name, as in train:dataset")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as e:
        raise ChainError(f"{name!r}: {e}. Run it from the folder that holds the module.") from e
    if not hasattr(found, attribute):
        raise ChainError(f"{name!r}: the module {module} has no {attribute!r}")
    return getattr(found, attribute)


def loadable(name: str) -> Dataset | Loader:
    """The Dataset or Loader that "module:name" names, or that a function of that name returns.

    Raises:
        ChainError: it names neither.
    """
    found = imported(name)
    found = found() if callable(found) else found
    if not isinstance(found, Dataset | Loader):
        raise ChainError(
            f"{name} is a {type(found).__name__}: name a Dataset, a Loader or a function"
        )
    return found


def dataset(name: str) -> Dataset:
    """The Dataset that "module:name" names, or that of a path, URL or glob.

    Raises:
        ChainError: it names a Loader, or nothing.
        SourceError: no such file.
    """
    module, _, attribute = name.partition(":")
    if not attribute.isidentifier() or not all(map(str.isidentifier, module.split("."))):
        return Dataset(name)
    found = loadable(name)
    if isinstance(found, Loader):
        raise ChainError(f"{name} is a Loader: name the Dataset that it loads")
    return found


def workers(text: str) -> int | str:
    """What `--workers` takes: a number, or "auto"."""
    return int(text) if text.isdecimal() else text
