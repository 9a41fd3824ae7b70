"""Tells whose code a module is: the user's own, an installed package's, or Python's."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import sysconfig
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

_INSTALLED = {"site-packages", "dist-packages"}  # folders in the paths of installed modules


def module_of(obj: Any) -> str:
    """The name of the module that an object says it is from; "" if it says none."""
    module = getattr(obj, "__module__", None)
    return module if isinstance(module, str) else ""


def is_python(module: str) -> bool:
    """Whether a module is of the standard library.

    >>> is_python("json.decoder"), is_python("numpy"), is_python("__main__")
    (True, False, False)
    """
    return module != "__main__" and module.partition(".")[0] in sys.stdlib_module_names


def is_users(module: str) -> bool:
    """Whether a module is the user's own: neither of Python, nor installed, nor Lockstep itself.

    Packages that are installed to be edited (`pip install -e`) are the user's, and so is what runs
    as `__main__`, whoever started it. So is the reference trainer, wherever it lies: its runs go on
    whether it is installed or a checkout.

    >>> is_users("json"), is_users("numpy.linalg"), is_users("__main__")
    (False, False, True)
    """
    return _is_users(module, module in sys.modules)


@lru_cache(1 << 14)
def _is_users(module: str, loaded: bool) -> bool:
    top = module.partition(".")[0]
    if module == "__main__":
        return True  # also where an installed program, as cProfile or pytest, runs the script
    if top == "harness":
        return True
    if not module or is_python(module) or top == "pipeline":
        return False
    found = sys.modules.get(module) or sys.modules.get(top)
    if found is not None:
        places = [getattr(found, "__file__", None) or "", *map(str, getattr(found, "__path__", ()))]
    else:
        spec = _spec(top)
        places = (
            [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
        )
    return not any(map(_is_installed, places))


def _is_installed(place: str) -> bool:
    libraries = sysconfig.get_paths()
    roots = {Path(libraries["purelib"]), Path(libraries["platlib"])}
    path = Path(place)
    return bool(place) and (
        not _INSTALLED.isdisjoint(path.parts) or not roots.isdisjoint(path.parents)
    )


def is_importable(module: str) -> bool:
    """Whether a fresh interpreter with the same path finds a user's module by its name.

    Scripts are not found, nor are modules that code has put into `sys.modules` itself, such as a
    script in a process that `multiprocessing` spawned, which is called `__mp_main__` there.

    >>> is_importable("numpy"), is_importable("__main__"), is_importable("__mp_main__")
    (True, False, False)
    """
    if not is_users(module):
        return True
    return module != "__main__" and _is_found(module.partition(".")[0], tuple(sys.path))


@lru_cache(1 << 10)
def _is_found(top: str, path: tuple[str, ...]) -> bool:
    finders = [f for finder in sys.meta_path if (f := getattr(finder, "find_spec", None))]
    return any(find(top, None) is not None for find in finders)


def package_of(module: str) -> str | None:
    """The installed package that a module belongs to; None if it is the user's or Python's.

    >>> package_of("numpy.linalg"), package_of("json"), package_of("__main__")
    ('numpy', None, None)
    """
    top = module.partition(".")[0]
    return None if not top or top == "pipeline" or is_python(module) or is_users(module) else top


def version_of(package: str) -> str:
    """The version of an installed package, by the name that it is imported by; "?" if unknown.

    >>> version_of("numpy") == np.__version__
    True
    """
    known = getattr(sys.modules.get(package), "__version__", None)
    if isinstance(known, str):
        return str(known)  # torch's is a class of its own, which no state may hold
    with suppress(Exception):
        from importlib import metadata  # takes longer to import than all of this package

        return metadata.version(package)
    return "?"


def source_of_module(module: str) -> str | None:
    """The file of a user's module, found without importing it; None if it is no Python source."""
    if not is_users(module):
        return None
    spec = _spec(module)
    origin = None if spec is None else spec.origin
    return origin if origin and origin.endswith(".py") else None


def _spec(module: str) -> importlib.machinery.ModuleSpec | None:
    # find_spec("a.b") would import a, so a's folders are searched instead
    places: list[str] | None = None
    spec = None
    name = ""
    for part in module.split("."):
        name, spec = f"{name}.{part}" if name else part, None
        with suppress(Exception):
            spec = importlib.machinery.PathFinder.find_spec(name, places)
        if spec is None:
            with suppress(Exception):  # finders of editable installs stand on sys.meta_path
                spec = importlib.util.find_spec(name) if "." not in name else None
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return spec
