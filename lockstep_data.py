"""The command `lockstep-data`: `python -m pipeline`, also where another `pipeline` hides ours.

Python finds a package by its name alone. In a folder with a `pipeline` of its own, or with one on
PYTHONPATH, `python -m pipeline` runs theirs. This file imports the one that is ours.
"""

from __future__ import annotations

import importlib
import os
import sys

OURS = os.path.join("pipeline", "sampling", "permutation.py")


def _home() -> str:
    """The folder of our package: beside this file or, after `pip install -e`, on the path."""
    here = os.path.dirname(os.path.abspath(__file__))
    return next((p for p in (here, *sys.path) if os.path.isfile(os.path.join(p, OURS))), here)


HERE = _home()


def main(argv: list[str] | None = None) -> int:
    """Run a command of `python -m pipeline`: its exit status. Names what hides our package."""
    for place in _hiding():
        print(
            f"lockstep-data: {place} hides Lockstep's package 'pipeline': `import pipeline` and "
            "`python -m pipeline` find it instead. Rename it.",
            file=sys.stderr,
        )
    return _ours().main(argv)


def _hiding() -> list[str]:
    """Packages and modules called `pipeline` that an import from here finds before ours."""
    found: list[str] = []
    for folder in [os.getcwd(), *(os.path.abspath(p or ".") for p in sys.path)]:
        if os.path.realpath(folder) == os.path.realpath(HERE):
            break
        for name in ("pipeline", "pipeline.py"):
            place = os.path.join(folder, name)
            if os.path.exists(place) and place not in found:
                found.append(place)
    return found


def _ours():
    # only while it is imported: what the user's modules import is found as ever
    sys.path.insert(0, HERE)
    try:
        return importlib.import_module("pipeline.__main__")
    finally:
        sys.path.remove(HERE)


if __name__ == "__main__":
    sys.exit(main())
