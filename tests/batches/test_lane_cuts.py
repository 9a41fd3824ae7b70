"""Skipped steps of a streamed dataset whose batches were of another size: rows of each lane."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from pipeline import Dataset, Loader


def _kept(n: int, lanes: int) -> Dataset:
    return Dataset(range(n), seed=3).shuffle().filter(lambda x: x % 4 > 0, block=5).lanes(lanes)


def _given(loader: Loader[Any], batches: int) -> list[int]:
    found = list[int]()
    while batches:
        for batch in loader:
            found += [int(x) for x in batch]
            batches -= 1
            if not batches:
                break
    return found


@pytest.mark.parametrize(
    ("lanes", "skip", "endless"),
    list(product([1, 2], [range(1, 3), range(2, 6), range(0, 1)], [True, False])),
)
def test_rows_of_skipped_steps_are_missing_under_other_batch_sizes(
    lanes: int, skip: range, endless: bool
) -> None:
    ds = _kept(60, lanes)
    ds = ds.repeat() if endless else ds
    with Loader(ds, 4) as loader:
        whole = [[int(x) for x in loader[k]] for k in range(8)]
    loader = Loader(ds, 4)
    loader.skip(skip)
    with Loader(ds, 8) as other:
        other.load_state_dict(loader.state_dict())
        given = _given(other, 2)
    cut = [row for k in skip for row in whole[k]]
    # each lane goes on with its next rows, so what is given is a prefix of each without the cut
    assert not set(given) & set(cut)
    for lane in range(lanes):
        rest = [_lane(batch, lane, lanes) for k, batch in enumerate(whole) if k not in skip]
        own = [x for half in (given[:8], given[8:]) for x in _lane(half, lane, lanes)]
        left = [x for rows in rest for x in rows]
        assert own[: len(left)] == left[: len(own)]


def _lane(batch: list[int], lane: int, lanes: int) -> list[int]:
    size = len(batch) // lanes
    return batch[lane * size : (lane + 1) * size]


def test_in_the_batch_size_that_named_them_steps_are_skipped_as_steps() -> None:
    ds = _kept(60, 2)
    with Loader(ds, 4) as loader:
        whole = [[int(x) for x in loader[k]] for k in range(6)]
    loader = Loader(ds, 4)
    loader.skip(range(1, 3))
    assert [[int(x) for x in next(loader)] for _ in range(3)] == [whole[0], whole[3], whole[4]]


SKIPPED = (range(0, 1), range(1, 2), range(1, 3), range(2, 5), range(3, 9))


@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
@pytest.mark.parametrize("old", [2, 4])
@pytest.mark.parametrize("n", [5, 13])
def test_counted_rows_are_cut_as_indexed_ones_are(n: int, old: int, remainder: Any) -> None:
    for new, steps, taken in product((1, 3, 4), SKIPPED, (0, 1)):
        found = [
            _after_a_skip(ds, old, new, remainder, steps, taken)
            for ds in (Dataset({"x": range(n)}), Dataset({"x": range(n)}).filter(lambda row: True))
        ]
        assert found[0] == found[1], (new, steps, taken)


def _after_a_skip(ds: Dataset, old: int, new: int, rule: Any, steps: range, taken: int) -> Any:
    before, after = Loader(ds, old, remainder=rule), Loader(ds, new, remainder=rule)
    for _ in range(taken):
        next(before)
    before.skip(steps)
    after.load_state_dict(before.state_dict())
    return [{name: a.tolist() for name, a in next(after).items()} for _ in range(20)]
