"""Importing what "module:name" on a command line stands for."""

from __future__ import annotations

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
        raise ChainError(f"{name!r}: {e}. Run it from the folder that holds the module.") from e
    if not hasattr(found, attribute):
        if module == "pipeline" and os.path.exists("pipeline.py"):
            raise ChainError(
                f"{name!r}: your pipeline.py and Lockstep's package have one name, and the package "
                "is found. Rename the file."
            )
        raise ChainError(f"{name!r}: the module {module} has no {attribute!r}")
    return getattr(found, attribute)
