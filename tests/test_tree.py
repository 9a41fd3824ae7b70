"""Trees: rows nested beyond reason are refused by name wherever they come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader
from pipeline.errors import CollateError
from pipeline.tree import DEEPEST, fresh, leaves, map_leaves, nbytes


def nested(kind: str, levels: int) -> Any:
    tree: Any = 1
    for _ in range(levels):
        tree = {"dict": {"a": tree}, "tuple": (tree,), "list": [tree]}[kind]
    return tree


@pytest.mark.parametrize("kind", ["dict", "tuple", "list"])
@pytest.mark.parametrize("levels", [100, 900, 50_000])
def test_deep_rows_are_refused_by_name(kind, levels):
    row = nested(kind, levels)
    for ds in (Dataset([row] * 4), Dataset(range(4)).map(lambda i: row), Dataset([{"x": row}] * 4)):
        with pytest.raises(CollateError, match=f"more than {DEEPEST} levels deep"):
            next(Loader(ds, 2))
    while isinstance(row, dict | tuple | list):  # freed level by level
        row = next(iter(row.values() if isinstance(row, dict) else row))


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_rows_of_some_depth_pass(kind):
    row = nested(kind, DEEPEST)
    assert next(leaves(row))[1] == fresh(next(leaves(row))[1]) == 1
    assert map_leaves(lambda x: x, row) == fresh(row) == row
    with pytest.raises(CollateError):
        fresh(nested(kind, DEEPEST + 1))
    assert nbytes(nested(kind, 500)) == 0
    assert next(leaves(next(Loader(Dataset([row] * 2), 2))))[1].tolist() == [1, 1]


def test_bytes_of_shallow_trees():
    assert nbytes({"a": np.zeros(2), "b": (np.zeros(3, np.int8),)}) == 19
