"""Which files and functions of the library one `next()` or `load_state_dict` of a loader enters."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import pipeline
from pipeline import Dataset, Loader

HOME = Path(pipeline.__file__).parent
Entered = dict[str, list[str]]
MOST = {"indexed map": 14, "filter + pack": 16, "load_state_dict": 6}  # files
MOST_EVALUATING = {"indexed map": 30, "filter + pack": 33}  # by a batch that evaluates its rows


def entered(call: Callable[[], Any]) -> Entered:
    """Functions of the library that a call enters, by file, each in order of first entry."""
    found: Entered = {}

    def profile(frame: Any, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(HOME):
            names = found.setdefault(str(path.relative_to(HOME)), [])
            if frame.f_code.co_qualname not in names:
                names.append(frame.f_code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(before)
    return found


def of_nexts(dataset: Dataset, batch: int = 8) -> list[Entered]:
    """What some calls of `next()` enter, from the one that enters least to the one most.

    The least is of a batch whose rows were evaluated ahead, as nearly all are; the most, of one
    that evaluates them itself.
    """
    loader = Loader(dataset, batch)
    for _ in range(3):
        next(loader)
    return sorted((entered(lambda: next(loader)) for _ in range(40)), key=len)


def of_restoring(dataset: Dataset, batch: int = 8) -> Entered:
    """What `load_state_dict` enters, in a loader that gave a batch before."""
    loader = Loader(dataset, batch)
    next(loader)
    state = loader.state_dict()
    next(loader)
    return entered(lambda: loader.load_state_dict(state))


def indexed_map() -> Dataset:
    """Rows of a sequence, shuffled and mapped."""
    return Dataset([{"x": np.full(4, i)} for i in range(640)], seed=1).shuffle().map(_plus)


def filtered_and_packed() -> Dataset:
    """Documents of tokens, some of them left out, packed into rows."""
    documents = [np.arange(1 + i % 7) for i in range(6400)]
    return Dataset(documents, seed=1).shuffle().filter(_some).pack(8)


def _plus(row: Any) -> Any:
    return {"x": row["x"] + 1}


def _some(row: Any) -> bool:
    return len(row) % 3 > 0


def show(what: str, nexts: list[Entered]) -> None:
    """Print the least and the most, file by file."""
    show_one(f"{what}, evaluated ahead", nexts[0])
    show_one(f"{what}, evaluating", nexts[-1])


def show_one(what: str, found: Entered) -> None:
    """Print what one call entered, file by file."""
    print(f"{what}: {len(found)} files, {sum(map(len, found.values()))} functions")
    for file, names in found.items():
        print(f"  {file}: {', '.join(names)}")


if __name__ == "__main__":
    show("indexed map", of_nexts(indexed_map()))
    show("filter + pack", of_nexts(filtered_and_packed()))
    show_one("load_state_dict, indexed map", of_restoring(indexed_map()))
    show_one("load_state_dict, filter + pack", of_restoring(filtered_and_packed()))
