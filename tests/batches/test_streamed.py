"""Batches of a streamed dataset: the next rows of each lane."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, mix
from pipeline.errors import BatchError, LanesError
from pipeline.nodes.now import lane_blocks
from tests.batches.checks import check_hosts, check_stream, opened, walked


def _kept(n: int = 40) -> Dataset:
    return Dataset(range(n), seed=1).shuffle().filter(lambda x: x % 3 > 0, block=4)


def _packed(n: int = 40) -> Dataset:
    docs = [np.arange(1 + i % 5) for i in range(n)]
    return Dataset(docs, seed=2).shuffle().pack(6, block=8)


def _mixed(n: int = 24) -> Dataset:
    parts = {"kept": _kept(n), "plain": Dataset(range(100, 100 + n), seed=3).shuffle()}
    return mix(parts, {"kept": 1, "plain": 2}, "never")


MAKERS = {"kept": _kept, "packed": _packed, "mixed": _mixed}


@pytest.mark.parametrize(("maker", "lanes"), list(product(MAKERS, [1, 2])))
@pytest.mark.parametrize("size", [2, 6, [(0, 4), (3, 8)]])
def test_a_lane_stream(maker: str, lanes: int, size: Any) -> None:
    check_stream(MAKERS[maker]().lanes(lanes), size)


@pytest.mark.parametrize(("maker", "remainder"), list(product(["kept", "packed"], ["drop", "pad"])))
def test_with_every_remainder(maker: str, remainder: str) -> None:
    ds = MAKERS[maker]().map(lambda row: {"row": row})
    check_stream(ds.lanes(2), 4, remainder)
    check_stream(ds.repeat(2).lanes(4), 8, remainder)


@pytest.mark.parametrize("maker", MAKERS)
def test_with_so_many_steps_a_pass(maker: str) -> None:
    check_stream(MAKERS[maker]().repeat().lanes(2), 4, steps=3)


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_it_by_lanes(hosts: int) -> None:
    check_hosts(_kept().repeat().lanes(4), 8, hosts)
    check_hosts(_kept().map(lambda x: {"x": x}).lanes(4), 8, hosts, remainder="pad")


def test_what_lanes_and_hosts_do_not_divide_is_refused() -> None:
    with pytest.raises(BatchError, match="lanes=4"):
        opened(_kept().lanes(4), 6)
    with pytest.raises(LanesError, match="2 lanes"):
        opened(_kept().repeat(), 4, hosts=2)
    with pytest.raises(LanesError, match="another step"):
        opened(_kept().lanes(2), 4, hosts=2)


def test_a_row_of_a_batch_is_of_the_lane_that_its_number_says() -> None:
    ds, lanes = _kept(60).lanes(3), 3
    own = {
        lane: [r for _, take in walked(opened(_lane(ds, lane), 1), 1) for r in take.block.rows()]
        for lane in range(lanes)
    }
    for k, (_, take) in enumerate(walked(opened(ds, 6), 1)[:2]):
        rows = take.block.rows()
        for lane in range(lanes):
            assert rows[2 * lane : 2 * lane + 2] == own[lane][2 * k : 2 * k + 2]


def _lane(ds: Dataset, lane: int) -> Dataset:
    # the rows of one lane, as a dataset of their own
    return Dataset([row for block in lane_blocks(ds.top, lane) for row in block.rows()])


@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
def test_a_row_that_fails_costs_no_batch_before_its_own(remainder: Any) -> None:
    # whether a pass goes on is looked up as a batch is handed out, among rows of the next one
    def checked(x: int) -> dict[str, int]:
        if x == 4:
            raise ValueError("bad")
        return {"x": x}

    ds = Dataset(range(12)).filter(lambda x: True, block=1).map(checked)
    loader = Loader(ds, 2, remainder=remainder)
    assert [next(loader)["x"].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            next(loader)
        assert loader.step == 2
    loader.skip(range(2, 3))
    with pytest.raises(ValueError, match="bad"):  # rows of skipped steps are read
        next(loader)
