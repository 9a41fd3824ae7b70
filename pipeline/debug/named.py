"""Importing what "module:name" on a command line stands for."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Any

from pipeline.errors import ChainError


def imported(name: str, *, here: bool = True) -> Any:
    """The object called "module:name".

    Args:
        name: "module:name".
        here: also search the working directory for the module.

    Raises:
        ChainError: `name` is not of this form, or there is no such module or name.

    >>> imported("math:floor")(2.5)
    2
    """
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ChainError(f"{name!r}: give module:name, as in train:dataset")
    if here and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if module.endswith(".py") and os.path.exists(module):
            folder, file = os.path.split(module)
            there = f" in {folder}" if folder else ""
            raise ChainError(
                f"{name!r}: a module is named without .py, where it lies: run it{there} with "
                f"{file[:-3]}:{attribute}"
            ) from e
        raise ChainError(f"{name!r}: {e}. Run it from the folder that holds the module.") from e
    if not hasattr(found, attribute):
        if module == "pipeline" and os.path.exists("pipeline.py"):
            raise ChainError(
                f"{name!r}: your pipeline.py and Lockstep's package have one name, and the package "
                "is found. Rename the file."
            )
        near = difflib.get_close_matches(attribute, [n for n in vars(found) if n[:1] != "_"])
        meant = f". Is it {module}:{near[0]}?" if near else ""
        raise ChainError(f"{name!r}: the module {module} has no {attribute!r}{meant}")
    return getattr(found, attribute)
