"""Datasets in turn."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from pipeline import Dataset, interleave
from pipeline.errors import ChainError
from tests.nodes.checks import check_indexed


def _parts(sizes: list[int]) -> list[Dataset]:
    return [Dataset(range(100 * i, 100 * i + n), seed=i) for i, n in enumerate(sizes)]


def _by_turns(sizes: list[int], slots: int, run: int) -> list[int]:
    # the rule written plainly: `slots` datasets take turns of `run` rows; one that is through
    # gives its slot to the next that has not begun
    waiting, rows = list(enumerate(sizes)), list[int]()
    active: list[list[int] | None] = []
    for _ in range(slots):
        active.append(_next(waiting))
    while any(slot is not None for slot in active):
        for i, slot in enumerate(active):
            if slot is None:
                continue
            part, given, size = slot
            take = min(run, size - given)
            rows += [100 * part + given + k for k in range(take)]
            slot[1] = given + take
            if slot[1] == size:
                active[i] = _next(waiting)
    return rows


def _next(waiting: list[tuple[int, int]]) -> list[int] | None:
    while waiting:
        part, size = waiting.pop(0)
        if size:
            return [part, 0, size]
    return None


SIZES = [[5], [3, 4], [1, 6, 2], [0, 4, 3], [2, 2, 2, 2, 2], [9, 1, 1, 5]]


@pytest.mark.parametrize(("sizes", "cycle", "run"), list(product(SIZES, [None, 1, 2], [1, 3])))
def test_an_interleave_is_a_node(sizes: list[int], cycle: int | None, run: int) -> None:
    ds = interleave(_parts(sizes), cycle=cycle, run=run)
    assert ds.read(np.arange(sum(sizes))).rows() == _by_turns(sizes, cycle or len(sizes), run)
    check_indexed(ds)


def test_on_shuffled_parts_and_under_orders() -> None:
    parts = [part.shuffle() for part in _parts([7, 3, 5])]
    check_indexed(interleave(parts, cycle=2, run=2).shuffle()[2:11].repeat(2))


@pytest.mark.parametrize("options", [{"cycle": 0}, {"run": 0}, {"cycle": -1}])
def test_turns_of_nothing_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ChainError, match=next(iter(options))):
        interleave(_parts([3, 3]), **options)  # pyright: ignore[reportArgumentType]
