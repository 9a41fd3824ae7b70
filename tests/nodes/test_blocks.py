"""filter, flat_map, bucket and pack: indexed rows, a block at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipeline import Dataset, concatenate
from tests.nodes.checks import check_streamed

STAGES: dict[str, Callable[[Dataset, int], Dataset]] = {
    "filter": lambda ds, block: ds.filter(lambda x: x % 3 > 0, block=block),
    "filter most": lambda ds, block: ds.filter(lambda x: x % 11 == 0, block=block),
    "flat_map": lambda ds, block: ds.flat_map(lambda x: [x] * (x % 3), block=block),
    "bucket": lambda ds, block: ds.bucket(lambda x: x, [20, 40], block=block),
    "pack": lambda ds, block: ds.map(lambda x: np.arange(1 + x % 5)).pack(6, block=block),
    "first_fit": lambda ds, block: ds.map(lambda x: np.arange(1 + x % 5)).pack(
        6, how="first_fit", block=block
    ),
    "several": lambda ds, block: (
        ds.filter(bool, block=block).random_map(lambda x, rng: x + rng.integers(9), name="r")
    ).flat_map(lambda x: [x, -x], block=3),
}


@pytest.mark.parametrize(("block", "lanes"), [(1, 3), (4, 1), (64, 2)])
@pytest.mark.parametrize("stage", STAGES)
def test_blocks_are_a_node(stage: str, block: int, lanes: int) -> None:
    base = Dataset(range(47), seed=8).shuffle()
    check_streamed(STAGES[stage](base, block).lanes(lanes))


@pytest.mark.parametrize("stage", STAGES)
def test_over_several_epochs_and_without_end(stage: str) -> None:
    base = Dataset(range(13), seed=8).shuffle()
    check_streamed(STAGES[stage](base, 4).repeat(3))
    check_streamed(STAGES[stage](base.repeat(), 4), rows=60)


def test_on_joins() -> None:
    parts = [Dataset(range(9), seed=1).shuffle(), Dataset(range(20, 26), seed=2)]
    check_streamed(concatenate(parts).shuffle().filter(lambda x: x % 2 > 0, block=5).lanes(2))


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_a_record_is_held_by_the_blocks_that_have_it(lanes: int) -> None:
    ds = Dataset(range(50), seed=3).shuffle().filter(lambda x: True, block=4).repeat().lanes(lanes)
    part, far = ds.top, 30
    there = {
        (lane, number): set(part.block_origin((), lane, number).record.tolist())
        for lane in range(lanes)
        for number in range(far)
    }
    places = [(lane, (far, 0)) for lane in range(lanes)]
    for record in range(0, 50, 7):
        wanted = sorted(at for at, records in there.items() if record in records)
        found = part.blocks_holding([("", record, record + 1)], places)
        assert [at for at in found if at in there] == wanted


def test_no_epoch_shares_a_block_with_another() -> None:
    part = Dataset(range(10), seed=3).shuffle().filter(lambda x: True, block=4).repeat(3).top
    for number in range(9):
        epochs = part.block_origin((), 0, number).epoch.tolist()
        assert len(set(epochs)) == 1
