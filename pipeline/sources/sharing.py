"""Whether records have something in common that may be changed, such as one array filled again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.tree import ATOMS, leaves


def share(a: Any, b: Any) -> bool:
    """Whether two records hold an object or memory in common that may be changed.

    >>> buffer = np.zeros(2)
    >>> share({"x": buffer}, {"x": buffer}), share("one text", "one text")
    (True, False)
    """
    return not _held(a).isdisjoint(_held(b))


def sharing(rows: Sequence[Any], indices: Sequence[int]) -> int:
    """The first row of another record than row 0, if the two `share`; else 0.

    >>> row = {"x": np.zeros(2)}
    >>> sharing([row, row, row], [3, 3, 5]), sharing([row, row], [3, 3])
    (2, 0)
    """
    other = next((k for k, i in enumerate(indices) if i != indices[0]), 0)
    return other if other and share(rows[0], rows[other]) else 0


def _held(row: Any) -> set[tuple[bool, int]]:
    # where the memory of its arrays lies, and the identity of other objects
    found = {(False, id(row))} if type(row) not in ATOMS else set[tuple[bool, int]]()
    for _, leaf in leaves(row):
        if isinstance(leaf, np.ndarray):
            found.add((True, leaf.__array_interface__["data"][0]))
        elif type(leaf) not in ATOMS:
            found.add((False, id(leaf)))
    return found
