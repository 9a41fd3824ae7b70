"""Lanes from which excluded rows are missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, mix
from pipeline.batches.without import Without
from pipeline.errors import StreamEndError
from pipeline.provenance.exclusions import Exclusions
from tests.nodes.checks import reader_of

BAD = ((2, 6), (11, 12))


def _without(ds: Dataset, step: int, bad: tuple[tuple[int, int], ...] = BAD) -> Without:
    part = ds.top
    return Without(reader_of(part), Exclusions(part.components, [(4, "", bad)]), step)


def _rows(reader: Without, want: int, each: int) -> list[int]:
    place, found = reader.start(), list[int]()
    while len(found) < want:
        blocks, place = reader.pull(0, place, 0, min(each, want - len(found)))
        got = [row for block in blocks for row in block.rows()]
        if not got:
            break
        found += got
    return found


@pytest.mark.parametrize("each", [1, 3, 50])
def test_whatever_comes_next_in_the_lane_follows(each: int) -> None:
    ds = Dataset(range(20)).filter(lambda x: x % 2 == 0, block=3)
    assert _rows(_without(ds, 4), 50, each) == [0, 6, 8, 10, 12, 14, 16, 18]
    assert _rows(_without(ds, 3), 50, each) == list(range(0, 20, 2))  # not in force yet


def test_has_counts_what_is_left() -> None:
    reader = _without(Dataset(range(20)).filter(lambda x: x % 2 == 0, block=3), 4)
    assert [reader.has(0, reader.start(), 0, want) for want in (1, 8, 9)] == [True, True, False]


def test_a_packed_row_is_missing_if_any_of_its_documents_is() -> None:
    docs = Dataset([np.full(2, i) for i in range(20)]).pack(4, block=4)
    reader = _without(docs, 4)
    blocks, _ = reader.pull(0, reader.start(), 0, 50)
    given = [sorted(set(row["tokens"].tolist())) for block in blocks for row in block.rows()]
    assert given == [[0, 1], [6, 7], [8, 9], [12, 13], [14, 15], [16, 17], [18, 19]]


def _seen(ds: Dataset, most: int) -> Dataset:
    # fails the test once more rows than that have been read, long before a person loses patience
    read = [0]

    def noted(row: Any) -> Any:
        read[0] += 1
        assert read[0] < most, f"{most} rows were read"
        return row

    return ds.map(noted)


def _few(n: int = 4, most: int = 40_000) -> Dataset:
    return _seen(Dataset(range(n), seed=1), most).shuffle().repeat()


def _mixed(streamed: Dataset) -> Dataset:
    return mix({"a": streamed, "b": Dataset(range(4)).repeat()}, {"a": 3, "b": 1}, stop="never")


ENDLESS: dict[str, Callable[[], Dataset]] = {
    "filter": lambda: _few().filter(lambda x: x < 2),
    "filter, then repeat": lambda: _seen(Dataset(range(4)), 9000).filter(lambda x: x < 2).repeat(),
    "flat_map": lambda: _few().flat_map(lambda x: [x] * 9),
    "pack": lambda: _few().map(lambda x: np.full(3, x)).pack(12),
    "lanes": lambda: _few(64).filter(lambda x: x < 32).lanes(2),
    "mix of streamed": lambda: _mixed(_few().filter(lambda x: x < 2)),
    "mix, of many rows a record": lambda: _mixed(_few().flat_map(lambda x: [x] * 99)),
    "filter of a mix": lambda: _mixed(_few().filter(lambda x: x < 2)).filter(lambda x: True),
    "filter of rows dealt": lambda: _mixed(_few()).filter(lambda x: x < 2),
    "repeated often": lambda: _seen(Dataset(range(4)), 9000).repeat(10**9).filter(lambda x: x < 2),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_stream_whose_every_row_is_excluded_ends_soon_and_says_why(name: str) -> None:
    ds = ENDLESS[name]()
    loader = Loader(ds, 2)
    next(loader)
    loader.skip(records=[(part, range(len(c.source))) for part, c in _parts(ds)])
    step = loader.step
    for _ in range(2):
        with pytest.raises(StreamEndError, match=r"records 0\.\..*: exclude fewer"):
            next(loader)
        assert loader.step == step


def _parts(ds: Dataset) -> list[tuple[str, Any]]:
    return [("/".join(c.path), c) for c in ds.top.components]


def test_a_packed_record_that_is_in_every_row_ends_it_too() -> None:
    loader = Loader(_few().map(lambda x: np.full(3, x)).pack(12), 2)
    next(loader)
    loader.skip(records=[0])
    with pytest.raises(StreamEndError, match=r"\(record 0\): exclude fewer"):
        next(loader)


def test_a_finite_pass_without_any_row_is_empty() -> None:
    loader = Loader(_seen(Dataset(range(4)), 99).filter(lambda x: x < 2), 1)
    next(loader)
    loader.skip(records=[0, 1])
    assert list(loader) == []


REST: dict[str, tuple[Callable[[], Dataset], list[Any], int]] = {
    # the dataset, what is excluded, and a row that still comes
    "one of many": (
        lambda: Dataset(range(5000), seed=1).shuffle().repeat().filter(lambda x: True),
        [range(4321), range(4322, 5000)],
        4321,
    ),
    "rarely kept": (
        lambda: (
            Dataset(range(4), seed=1)
            .repeat()
            .random_map(lambda x, rng: {"x": x, "keep": x < 1 or rng.random() < 0.1})
            .filter(lambda row: row["keep"])
            .map(lambda row: row["x"])
        ),
        [range(3)],
        3,
    ),
    "of many rows": (
        lambda: _mixed(Dataset(range(4)).repeat().flat_map(lambda x: [x] * (600 if x < 3 else 1))),
        [("a", range(3)), ("b", range(4))],
        3,
    ),
    "in a later entry of the schedule": (
        lambda: mix(
            {"a": Dataset(range(4)).repeat().filter(lambda x: True), "b": Dataset([7]).repeat()},
            [(0, {"a": 1}), (3_000, {"a": 1, "b": 1})],
            stop="never",
        ),
        [("a", range(4))],
        7,
    ),
    "of a small share": (
        lambda: mix(
            {"a": Dataset(range(4)).repeat().filter(lambda x: True), "b": Dataset([7]).repeat()},
            {"a": 1999, "b": 1},
            stop="never",
        ),
        [("a", range(4))],
        7,
    ),
    "of a small share, filtered": (
        lambda: mix(
            {"a": Dataset(range(4)).repeat(), "b": Dataset([7]).repeat()},
            {"a": 1999, "b": 1},
            stop="never",
        ).filter(lambda x: True),
        [("a", range(4))],
        7,
    ),
}


@pytest.mark.parametrize("name", REST)
def test_rows_that_are_not_excluded_come_however_late(name: str) -> None:
    make, records, row = REST[name]
    loader = Loader(make(), 1)
    loader.skip(records=records)
    assert [int(next(loader)[0]) for _ in range(2)] == [row, row]
