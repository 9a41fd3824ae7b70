"""Under which "module:name" a dataset can be found again, and opening what a run named so."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from pipeline.errors import JournalError

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def checked(name: str) -> str:
    """A name that the user gave.

    Raises:
        JournalError: it is not written module:name, or lies in `__main__`, which is another module
            in another process.

    >>> checked("train:dataset")
    'train:dataset'
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):  # pyright: ignore
        raise JournalError(f"data={name!r}: give module:name, as in data='train:dataset'.")
    if name.startswith(("__main__:", "__mp_main__:")):
        raise JournalError(
            f"data={name!r}: __main__ is another module in another process. Move the dataset to a "
            "module of its own, and name that."
        )
    return name


def found_name(*wanted: Any) -> str | None:
    """The global of an imported module that is one of these objects, as "module:name".

    Names in `__main__` are none, nor those with an underscore first.
    """
    main = sys.modules.get("__main__")  # torch and multiprocessing list it as __mp_main__ too
    for module_name, module in sorted(sys.modules.items()):
        if module is main or module_name.partition(".")[0] == "pipeline":
            continue
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if any(value is each for each in wanted) and not name.startswith("_"):
                found = f"{module_name}:{name}"
                return found if _NAME.fullmatch(found) else None
    return None


def importable_outside(name: str, folder: Path) -> None:
    """Refuse a name that a run noted where its module would come from the run's own folder.

    A folder of logs may come from anybody: no code of it is to be executed.

    Raises:
        JournalError: it would.
    """
    from importlib.util import find_spec

    inside = folder.resolve()
    sys.path[:] = [p for p in sys.path if not _within(Path(p or ".").resolve(), inside)]
    module = name.partition(":")[0].partition(".")[0]
    spec = None if module in sys.modules else find_spec(module)
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    if any(p and _within(Path(p).resolve(), inside) for p in places):
        raise JournalError(
            f"the run in {folder} names its dataset {name!r}, whose module lies in that folder: it "
            "is not imported. Give --data module:name yourself if you trust it."
        )


def _within(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents
