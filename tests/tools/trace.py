"""Which files and functions of the library one `next()` of a loader enters."""

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
MOST = {"indexed map": 17, "filter + pack": 18}  # files


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


def of_next(dataset: Dataset, batch: int = 8) -> Entered:
    """What the third `next()` of a loader enters: the first ones find out what stays."""
    loader = Loader(dataset, batch)
    next(loader), next(loader)
    return entered(lambda: next(loader))


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


def show(what: str, found: Entered) -> None:
    """Print a trace, file by file."""
    print(f"{what}: {len(found)} files, {sum(map(len, found.values()))} functions")
    for file, names in found.items():
        print(f"  {file}: {', '.join(names)}")


if __name__ == "__main__":
    show("indexed map", of_next(indexed_map()))
    show("filter + pack", of_next(filtered_and_packed()))
