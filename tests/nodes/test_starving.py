"""Streamed data that gives no rows: the error says which lane, why, and what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, mix
from pipeline.errors import StreamEndError


def _fails(x: int) -> int:
    raise ValueError(f"bad record {x}")


def _hundreds(x: int) -> bool:
    return x // 100 == 3


@pytest.mark.parametrize(
    ("ds", "says", "not_said"),
    [
        (
            Dataset(range(1000)).filter(_hundreds).lanes(8).repeat(),
            r"lane 0 of 8 .*rows 0\.\.61, 500\.\.561\).*not shuffled.*shuffle\(\) before filter",
            "everything|more lanes than rows",
        ),
        (
            Dataset(range(1000)).shuffle().filter(lambda x: x > 5000).lanes(8).repeat(),
            "keeps too few rows for 8 lanes",
            "not shuffled",
        ),
        (Dataset(range(9)).filter(lambda x: x > 9).repeat(), "drop all of them", "lanes"),
        (
            Dataset(range(3)).filter(lambda x: True).lanes(8).repeat(),
            "there are 8 lanes and 3 rows",
            "shuffle",
        ),
        (
            mix({"a": Dataset(range(1000)).filter(_hundreds).repeat()}, {"a": 1}).lanes(8),
            r"lane 0 of 8 .*shuffle\(\) before",
            "everything",
        ),
    ],
)
def test_a_lane_without_rows_says_why(ds: Dataset, says: str, not_said: str) -> None:
    with pytest.raises(StreamEndError, match=says) as error:
        next(Loader(ds, 8))
    assert not any(words in str(error.value).partition(":")[2] for words in not_said.split("|"))


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "stages",
    [
        lambda ds: ds.map(_fails).filter(lambda x: True),
        lambda ds: ds.filter(_fails),
        lambda ds: ds.flat_map(_fails),
    ],
)
def test_records_that_all_fail_name_their_error(stages: Any, workers: int, repeat: bool) -> None:
    ds = stages(Dataset(range(10))).on_error("skip")
    with (
        Loader(ds.repeat() if repeat else ds, 4, workers=workers) as loader,
        pytest.raises(StreamEndError, match="all of them do: ValueError: bad record") as error,
    ):
        next(loader)
    assert isinstance(error.value.__cause__, ValueError)


def test_a_pass_that_a_filter_leaves_empty_has_no_batches() -> None:
    def dropped(x: int) -> bool:
        return _fails(x) > 0 if x == 3 else False

    assert list(Loader(Dataset(range(10)).filter(dropped).on_error("skip"), 4)) == []


@pytest.mark.parametrize("stage", ["filter", "flat_map", "pack"])
@pytest.mark.parametrize("lanes", [1, 2])
def test_no_records_are_no_rows_also_where_bad_ones_are_skipped(stage: str, lanes: int) -> None:
    empty = Dataset(np.zeros((3, 4), int))[3:]
    made = {
        "filter": lambda: empty.filter(lambda row: True),
        "flat_map": lambda: empty.flat_map(lambda row: [row]),
        "pack": lambda: empty.pack(4),
    }
    ds = made[stage]().lanes(lanes).on_error("skip")
    assert list(Loader(ds, 2)) == []
    assert list(ds) == ds.head(3) == []
    with pytest.raises(StopIteration):
        next(Loader(ds, 2))


@pytest.mark.parametrize("stop", ["first", "all", "never"])
def test_of_an_endless_mix_of_repeated_datasets_too(stop: Any) -> None:
    parts = {name: Dataset(range(9)).shuffle().repeat() for name in "ab"}
    ds = mix(parts, {"a": 1, "b": 1}, stop).filter(lambda x: False)
    with pytest.raises(StreamEndError, match="drop all of them"):
        next(Loader(ds, 4))
