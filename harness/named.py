"""Importing the object that a setting such as "module:name" names."""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any

from harness.errors import ConfigError

_NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_named(text: str) -> bool:
    """Whether a setting names an object of a module.

    >>> is_named("mine.data:rows"), is_named("../data"), is_named("gs://bucket/x")
    (True, False, False)
    """
    return bool(_NAMED.fullmatch(text))


def load_named(setting: str, text: str) -> Any:
    """The object named `module:name`; the working directory is searched for modules too.

    Raises:
        ConfigError: there is no such module, or no such name in it.

    >>> load_named("task", "math:sqrt")(4)
    2.0
    """
    if not is_named(text):
        raise ConfigError(f"{setting}={text!r}: give module:name, such as my_project.data:rows.")
    module, _, name = text.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name is None or not module.startswith(e.name):
            raise  # the module exists, but a package that it imports does not
        raise ConfigError(
            f"{setting}={text!r}: there is no module {e.name}. Start where it lies "
            f"({os.getcwd()} is searched), or install it."
        ) from e
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{setting}={text!r}: {found!r} has no {part}.")
        found = getattr(found, part)
    return found
