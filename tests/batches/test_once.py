"""One pass from step 0, each time it is iterated."""

from __future__ import annotations

import pytest

from pipeline import Dataset, Loader, Processes


def _ids(batches) -> list[list[int]]:
    return [[int(x) for x in batch] for batch in batches]


@pytest.mark.parametrize("workers", [0, Processes(1)], ids=["serial", "processes"])
def test_each_time_the_same_pass(workers) -> None:
    loader = Loader(Dataset(range(10), seed=1).shuffle(), 4, workers=workers)
    next(loader)  # where the loader stands is its own business
    once = loader.once()
    first = _ids(once)
    assert len(first) == len(once) == 3
    assert sorted(x for batch in first for x in batch) == list(range(10))
    assert _ids(once) == first
    assert loader.step == 1
    once.close()
    assert _ids(once) == first
    once.close()
    loader.close()


def test_two_loops_at_a_time_do_not_disturb_each_other() -> None:
    once = Loader(Dataset(range(12), seed=1).shuffle(), 4).once()
    outer = list[tuple[list[int], list[list[int]]]]()
    for batch in once:
        outer.append((batch.tolist(), _ids(once)))
    assert [batch for batch, _ in outer] == outer[0][1]
    assert all(inner == outer[0][1] for _, inner in outer)


def test_a_loop_that_is_left_begins_again() -> None:
    once = Loader(Dataset(range(12)), 4).once()
    for _ in once:
        break
    assert _ids(once) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
