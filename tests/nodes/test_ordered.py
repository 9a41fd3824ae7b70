"""Orders as nodes: which row beneath stands at each position, and where a record went."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipeline import Dataset, scan
from tests.nodes.checks import check_indexed

ORDERS: dict[str, Callable[[Dataset], Dataset]] = {
    "shuffle": lambda ds: ds.shuffle(),
    "window": lambda ds: ds.shuffle(window=5),
    "chunks": lambda ds: ds.shuffle(chunks=3, run=4),
    "pinned": lambda ds: ds.shuffle(reshuffle=False),
    "slice": lambda ds: ds[3:17],
    "backwards": lambda ds: ds[::-1],
    "strided": lambda ds: ds[20:1:-3],
    "rows by hand": lambda ds: ds[[4, 1, 1, 9]],
    "mask": lambda ds: ds[np.arange(23) % 3 == 0],
    "repeat": lambda ds: ds.repeat(2),
    "endless": lambda ds: ds.repeat(),
    "limit": lambda ds: ds.shuffle().limit(9),
    "two shuffles": lambda ds: ds.shuffle(name="a").shuffle(name="b"),
    "split and repeated": lambda ds: ds.shuffle()[5:15].shuffle(name="again").repeat(2),
    "window on a slice": lambda ds: ds[2:].shuffle(window=4).repeat(3),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n", [23])
def test_an_order_is_a_node(order: str, n: int) -> None:
    check_indexed(ORDERS[order](Dataset(range(n), seed=5)))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17])
@pytest.mark.parametrize("order", ["shuffle", "window", "pinned", "repeat", "backwards"])
def test_of_few_rows_too(order: str, n: int) -> None:
    check_indexed(ORDERS[order](Dataset(range(n), seed=1)))


def test_rows_that_a_scan_flags(tmp_path) -> None:
    ds = Dataset(range(23), seed=2).shuffle(reshuffle=False)
    flags = scan(ds, lambda x: x % 4 > 0, path=tmp_path, workers=0, progress=False)
    check_indexed(ds.filter(flags))
    check_indexed(ds.filter(flags).shuffle(name="above")[1:9])


@pytest.mark.parametrize("order", ["slice", "pinned", "rows by hand", "limit"])
def test_what_pins_says_so(order: str) -> None:
    ds = ORDERS[order](Dataset(range(23)))
    again = ds.read(np.arange(len(ds)), epoch=4).rows()
    assert ds.top.node.varies() is None or order == "limit"
    assert (ds.read(np.arange(len(ds))).rows() == again) == (ds.top.node.varies() is None)
