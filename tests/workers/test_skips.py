"""What `.on_error("skip")` skips, what stands in its place, and what is said of it."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Dataset, Loader, Processes, Serial, Threads, zip_datasets
from pipeline.debug.digest import digest
from pipeline.errors import ChainError, MismatchError, RecordError, StreamEndError
from tests.examples import examples

BAD = {3, 4, 17}


def _picky(row: Any) -> Any:
    if int(row["x"]) in BAD:
        raise ValueError(f"bad {int(row['x'])}")
    return {"x": row["x"]}


def _picky_columns(rows: Any) -> Any:
    if set(rows["x"].tolist()) & BAD:
        raise ValueError("bad among them")
    return {"x": rows["x"]}


class _Corrupt:
    """A source with corrupt records; one whose disk fails."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def __len__(self) -> int:
        return 40

    def read(self, indices: Any) -> list[Any]:
        if set(indices.tolist()) & BAD:
            raise self.error("cannot read it")
        return [{"x": np.int64(i)} for i in indices]


def _dataset(batched: bool = False) -> Dataset:
    ds = Dataset({"x": np.arange(40)}, seed=2)
    return ds.map(_picky_columns if batched else _picky, batched=batched, name="picky")


@pytest.mark.long
@pytest.mark.parametrize("ds", [_dataset(), _dataset(True), Dataset(_Corrupt(RecordError))])
def test_an_indexed_dataset_takes_the_next_good_row(ds: Dataset) -> None:
    rows = [int(row["x"]) for row in ds.on_error("skip")]
    assert rows == [5 if i in (3, 4) else 18 if i == 17 else i for i in range(40)]


@given(st.integers(1, 9), st.sampled_from([1, 2, 4]), st.booleans())
@examples(15)
def test_substitutes_depend_on_neither_grouping_nor_hosts(
    size: int, hosts: int, batched: bool
) -> None:
    ds = _dataset(batched).shuffle(seed=5).repeat(2).on_error("skip")
    whole = [int(row["x"]) for row in ds]
    for epoch in (whole[:40], whole[40:]):
        assert set(epoch) == set(range(40)) - BAD
    parts = [list(Loader(ds, 4 * size, host=h, hosts=hosts)) for h in range(hosts)]
    got = [int(x) for batch in zip(*parts, strict=True) for part in batch for x in part["x"]]
    assert got == whole


def test_the_end_of_an_epoch_borrows_from_its_beginning() -> None:
    ds = Dataset(range(4)).map(lambda x: 1 // (3 - x) if x == 3 else x).repeat(2).on_error("skip")
    assert list(ds) == [0, 1, 2, 0] * 2


def test_a_counted_dataset_leaves_the_row_out() -> None:
    ds = _dataset().filter(lambda row: row["x"] % 2 == 1).on_error("skip")
    assert [int(row["x"]) for row in ds] == [i for i in range(1, 40, 2) if i not in BAD]
    strict = Dataset(range(12)).filter(lambda x: 10 // (x - 3) > 0).on_error("skip")
    assert list(strict) == list(range(4, 12))
    many = Dataset(range(5)).flat_map(lambda x: [x] * (2 // x)).on_error("skip")
    assert list(many) == [1, 1, 2]


@pytest.mark.long
@pytest.mark.parametrize("workers", [Serial(), Threads(2), Processes(2, parent=False)], ids=str)
@pytest.mark.parametrize("counted", [False, True])
def test_each_is_logged_once_with_its_provenance(
    workers: Any, counted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ds = _dataset().on_error("skip")
    ds = ds.filter(lambda row: True, block=4) if counted else ds
    plain = [digest(batch) for batch in Loader(_dataset_like(ds), 8)]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "pipeline"), Loader(ds, 8, workers=workers) as loader:
        assert [digest(batch) for batch in loader] == plain
        loader.seek(0)
        next(loader)
        shown = [row.record for row in loader.where(0)]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (3 if counted else 2)  # neighbours in an order are told as a range
    assert any("record 17 of MemorySource, epoch 0: ValueError: bad 17" in text for text in said)
    together = "skipped 2 records, record 3 of MemorySource, epoch 0 to record 4 of MemorySource"
    assert counted or any(together in text for text in said)
    assert all("map 'picky'" in text or together in text for text in said)
    assert shown == ([0, 1, 2, 5, 6, 7, 8, 9] if counted else [0, 1, 2, 5, 5, 5, 6, 7])


def _dataset_like(ds: Dataset) -> Dataset:
    return ds.lanes(1) if ds.counted else ds.map(lambda row: row)


@pytest.mark.parametrize("counted", [False, True])
def test_io_errors_and_mistakes_in_the_chain_are_raised(counted: bool) -> None:
    disk = Dataset(_Corrupt(OSError)).on_error("skip")
    wrong = Dataset({"x": np.arange(8)}).map(lambda c: {"x": c["x"][:1]}, batched=True)
    for ds, error in ((disk, OSError), (wrong.on_error("skip"), ChainError)):
        with pytest.raises(error):
            list(ds.filter(lambda row: True) if counted else ds)


def test_where_nothing_is_good_the_error_is_raised() -> None:
    ds = Dataset(range(3)).map(lambda x: 1 // 0).on_error("skip")
    with pytest.raises(ZeroDivisionError):
        next(Loader(ds, 2))
    with pytest.raises(StreamEndError, match="all of them do: ZeroDivisionError"):
        list(ds.filter(bool))


def test_it_is_part_of_the_data() -> None:
    ds = _dataset()
    assert ds.on_error("raise").fingerprint() == ds.fingerprint()
    assert ds.on_error("skip").fingerprint() == {**ds.fingerprint(), "on_error": "skip"}
    state = Loader(ds, 4).state_dict()
    with pytest.raises(MismatchError, match="on_error"):
        Loader(ds.on_error("skip"), 4).load_state_dict(state)
    assert ds.on_error("skip").shuffle().fingerprint()["on_error"] == "skip"
    with pytest.raises(ChainError, match="choose"):
        ds.on_error("ignore")  # type: ignore[arg-type]


def test_a_zip_of_what_skips_is_refused() -> None:
    with pytest.raises(ChainError, match="after the zip"):
        zip_datasets({"a": _dataset().on_error("skip"), "b": _dataset()})
    both = zip_datasets({"a": _dataset(), "b": Dataset({"x": np.arange(40)})}).on_error("skip")
    assert all(row["a"]["x"] == row["b"]["x"] for row in both)
