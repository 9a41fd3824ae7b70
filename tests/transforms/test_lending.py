"""Memory that one function keeps and the next one changes in place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Threads, concatenate, mix
from pipeline.transforms.lending import Given

N, LARGE = 12, 40_000


def _doubled(row: Any) -> Any:
    row["x"] *= 2
    row["n"] = row.get("n", 0) + 1
    return row


def _halved(row: Any, rng: np.random.Generator) -> Any:
    row["x"] /= 2
    return row


def _views(size: int) -> Callable[[int], Any]:
    table = np.ones((N, size))
    return lambda i: {"x": table[i]}


def _dicts(size: int) -> Callable[[int], Any]:
    rows = [{"x": np.ones(size)} for _ in range(N)]
    return lambda i: rows[i]


def _cached(size: int) -> Callable[[int], Any]:
    load = functools.lru_cache(lambda i: np.ones(size))
    return lambda i: {"x": load(i)}


def _nested(size: int) -> Callable[[int], Any]:
    one = np.ones(size)
    return lambda i: {"x": one, "more": ([one], i)}


def _torch(size: int) -> Callable[[int], Any]:
    torch = pytest.importorskip("torch")
    one = torch.ones(size)
    return lambda i: {"x": one}


LENDERS = {"views": _views, "dicts": _dicts, "cached": _cached, "nested": _nested, "torch": _torch}


def _same(row: Any) -> Any:
    return row


CHAINS: dict[str, Callable[[Dataset], Dataset]] = {
    "map": lambda ds: ds.map(_doubled),
    "handed on": lambda ds: ds.map(_same).map(_same, name="again").map(_doubled),
    "several": lambda ds: ds.flat_map(lambda row: [row, row]).map(_doubled),
    "random": lambda ds: ds.random_map(_halved).map(_doubled).map(_doubled),
    "skip": lambda ds: ds.map(_doubled).on_error("skip"),
    "filter": lambda ds: ds.filter(lambda row: True).map(_doubled),
    "joined": lambda ds: concatenate([ds, ds]).map(_doubled),
    "late": lambda ds: (
        mix({"a": ds.filter(lambda row: True), "b": ds}, {"a": 1, "b": 1})
        .filter(lambda row: True, name="late")
        .map(_doubled)
    ),
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize(("lender", "size"), [*((k, 3) for k in LENDERS), ("views", LARGE)])
def test_what_is_changed_in_place_is_the_rows_own(lender: str, size: int, chain: str) -> None:
    ways: list[Any] = [(4, None, 0), (1, list, 0), (5, None, Threads(2))]
    for batch, collate, workers in ways:
        ds = CHAINS[chain](Dataset(range(N)).map(LENDERS[lender](size)))
        with Loader(ds, batch, collate=collate, workers=workers) as loader:
            rows: list[Any] = []
            for got in (*loader, *loader):
                rows += got if collate else [{"x": x} for x in got["x"]]
        assert {float(row["x"][0]) for row in rows} == {2.0}


def test_what_a_filter_notes_in_its_row_stays() -> None:
    def noted(row: Any) -> bool:
        row["length"] = len(row["x"])
        return row["length"] > 2

    ds = Dataset(range(6)).flat_map(lambda i: [{"x": [0] * i}] * 2).filter(noted)
    assert [row["length"] for row in ds] == [3, 3, 4, 4, 5, 5]


def test_only_what_others_hold_and_a_function_changes_is_copied() -> None:
    def given(rows: list[Any], change: bool) -> tuple[bool, bool, list[bool]]:
        kept = Given(rows)
        got = list[Any]()
        for row in kept:
            got.append(row)
            row["x"][0] += change
        return kept.lent, kept.copied, [a is b for a, b in zip(got, rows, strict=True)]

    def fresh() -> dict[str, Any]:
        return {"x": np.zeros(6)[1:], "y": ([np.zeros(2)], "text", None), "z": {"a": [1]}}

    table = np.zeros((3, 2))
    views = [{"x": row} for row in table]
    assert given([fresh() for _ in range(3)], True) == (False, False, [True] * 3)
    assert given([{"x": row} for row in table], False) == (True, False, [False, True, True])
    assert given(views, True)[1:] == (True, [False] * 3)
    assert not table.any()
