"""Importing the object that a setting such as "module:name" names; what cannot be such a name."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from itertools import islice
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, HarnessError
from pipeline.errors import PipelineError
from pipeline.sources.formats import SUFFIXES

_NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_FILES = (*SUFFIXES, ".csv", ".tsv", ".zip", ".tgz")
_LOOKED = 1000  # entries of a folder that are looked at


def is_named(text: str) -> bool:
    """Whether a setting names an object of a module.

    >>> is_named("mine.data:rows"), is_named("../data"), is_named("gs://bucket/x")
    (True, False, False)
    """
    return bool(_NAMED.fullmatch(text))


def load_named(setting: str, text: str) -> Any:
    """The object named `module:name`; the working directory is searched for modules too.

    Raises:
        ConfigError: there is no such module, it cannot be imported, or it has no such name.

    >>> load_named("task", "math:sqrt")(4)
    2.0
    """
    if not is_named(text):
        raise ConfigError(f"{setting}={text!r}: give module:name, such as my_project.data:rows.")
    module, _, name = text.partition(":")
    _search_here()
    try:
        found: Any = importlib.import_module(module)
    except (HarnessError, PipelineError):
        raise
    except Exception as e:
        if not isinstance(e, ModuleNotFoundError) or not f"{module}.".startswith(f"{e.name}."):
            raise ConfigError(
                f"{setting}={text!r}: the import of {module} raised {type(e).__name__}: {e}."
            ) from e
        raise ConfigError(
            f"{setting}={text!r}: there is no module {e.name}. Start where it lies "
            f"({os.getcwd()} is searched), or install it."
        ) from e
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"{setting}={text!r}: {found!r} has no {part}.{hint}")
        found = getattr(found, part)
    return found


def called(setting: str, text: str, function: Any, cfg: Any) -> Any:
    """What the object that a setting names gives for the config.

    Raises:
        ConfigError: it raised an error, which is told with its place.
    """
    try:
        return function(cfg)
    except (HarnessError, PipelineError):
        raise
    except Exception as e:
        inside = traceback.extract_tb(e.__traceback__)[1:]  # the first is the call above
        where = f" ({inside[-1].filename}:{inside[-1].lineno})" if inside else ""
        raise ConfigError(
            f"{setting}={text!r} is called with the config, as f(cfg), and raised "
            f"{type(e).__name__}: {e}{where}."
        ) from e


def check_folder(source: str, folder: Path) -> None:
    """Check that the setting data can name a folder for the embedded corpus.

    Args:
        source: the setting, which is no `module:name`.
        folder: the one that it stands for, which need not exist.

    Raises:
        ConfigError: it names files or a module, so that the corpus is not what is meant.
    """
    if files := _held(source, folder) if folder.is_dir() else _files(source):
        raise ConfigError(
            f"data={source!r} looks like files, but data is a module:name or the folder of the "
            f"embedded corpus, which holds no others. To train on files: data.train={files!r}."
        )
    if not folder.is_dir() and _is_module(source):
        raise ConfigError(
            f"data={source!r} looks like a module, whose object is to be named too: "
            f"data={source.partition(':')[0]}:name. For a folder of the embedded corpus: "
            f"data=./{source}."
        )


def _files(source: str) -> str:
    """What data.train would be if a source means files; "" if it does not."""
    here = Path(source)
    known = here.suffix.lower() in _FILES or here.is_file()
    if known or "://" in source or set(source) & set("*?["):
        return source
    return _held(source, here) if here.is_dir() else ""


def _held(source: str, folder: Path) -> str:
    """The same for a folder of data files; the default, ../data, may hold what it likes."""
    inside = () if source.startswith(".") else islice(folder.rglob("*"), _LOOKED)
    found = sorted((p.parent != folder, p.suffix) for p in inside if p.suffix in _FILES)
    return f"{folder}/{'**/' * found[0][0]}*{found[0][1]}" if found else ""


def _is_module(source: str) -> bool:
    if _DOTTED.fullmatch(source) or (":" in source and "/" not in source):
        return True
    if not source.isidentifier() or source in sys.stdlib_module_names:
        return False
    _search_here()
    found = importlib.util.find_spec(source)
    return found is not None and found.origin is not None  # None: any folder, by PEP 420


def _search_here() -> None:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
