"""How many batches make a work: a mix of many datasets gathers rows, others stay prompt."""

from __future__ import annotations

from pipeline import Dataset, concatenate, mix, zip_datasets
from pipeline.workers.work import LATE, Cost


def _cost(sources: int, seconds: float) -> Cost:
    """After works of one and of two batches of 128 rows, each row as quick."""
    cost = Cost(sources)
    for rows in (128, 256, 128, 256):
        cost.add(rows=rows, nbytes=8 * rows, seconds=seconds * rows)
    return cost


def test_many_sources_are_asked_for_the_rows_of_many_batches() -> None:
    gathered = _cost(1000, 50e-6).batches(128, seconds=0.02, nbytes=1 << 20)
    assert (
        gathered
        == int(LATE / 50e-6) // 128
        > _cost(1, 50e-6).batches(128, seconds=0.02, nbytes=1 << 20)
    )


def test_rows_that_are_slow_themselves_are_not_gathered() -> None:
    for sources in (2, 1000):
        assert _cost(sources, 2e-3).batches(128, seconds=0.02, nbytes=1 << 20) == 1


def test_only_mixes_take_few_rows_of_each_source() -> None:
    parts = {name: Dataset({"x": [1, 2, 3]}) for name in "abc"}
    weights = dict.fromkeys(parts, 1)
    assert mix(parts, weights).shuffle().top.node.dealt == 3
    assert mix({"m": mix(parts, weights), "d": parts["a"]}, {"m": 1, "d": 1}).top.node.dealt == 4
    assert concatenate(list(parts.values())).top.node.dealt == 1
    assert zip_datasets(parts).top.node.dealt == 1
