"""find is where turned round: by inverse orders or by looking, it tells the same steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline import Dataset, Loader, concatenate, zip_datasets
from pipeline.batches.indexed import IndexedStream
from pipeline.errors import PositionError, StreamEndError
from pipeline.provenance import find as finding
from pipeline.provenance.where import RowOrigin
from tests.datasets import Files, a_record, anything, build, gives_rows
from tests.examples import examples


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


@pytest.fixture(params=["inverse", "looking"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(finding, "FEW", 0 if request.param == "inverse" else 1 << 40)
    return request.param


def records(row: RowOrigin) -> set[tuple[str, int]]:
    own = {(row.component, row.record)} if not row.segments else set[tuple[str, int]]()
    own |= {r for s in row.segments for r in records(s.row)}
    return own | {r for other in row.beside for r in records(other)}


def looked_up(loader: Loader, steps: int, record: tuple[str, int]) -> list[int]:
    return [k for k in range(steps) if any(record in records(r) for r in loader.where(k))]


@examples(10)
@given(anything(), st.sampled_from([4, 7]), st.sampled_from([None, 2]), st.integers(0, 59))
def test_find_agrees_with_where(
    files: Files, recipe: Any, size: int, steps: int | None, number: int
) -> None:
    ds = build(files, recipe)
    ds = (ds.lanes(1) if ds.counted else ds).repeat()
    assume(gives_rows(ds) and len(ds.components[number % len(ds.components)].source))
    record = a_record(ds, number)
    loader = Loader(ds, size, steps=steps)
    few = finding.FEW
    if not ds.counted and ds.top.length:
        ds.top.positions([(*record, record[1] + 1)], 0, 0, min(ds.top.length, 40))
    expected = looked_up(loader, 9, record)
    try:
        for finding.FEW in (0, few):
            assert loader.find(record, within=range(9)) == expected
            assert loader.find(record, within=range(3, 8)) == [k for k in expected if 3 <= k < 8]
    finally:
        finding.FEW = few


def joined() -> Dataset:
    one = Dataset({"x": np.arange(9)}, seed=1).shuffle()
    other = Dataset({"x": np.arange(9)}, seed=2).shuffle(window=3)
    parts = [one[2:], zip_datasets({"a": one, "b": other}).map(lambda row: row["a"]), one]
    return concatenate(parts, seed=4).shuffle(name="all").repeat()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("component", ["0", "1/a", "2"])
def test_components_are_told_apart(component: str) -> None:
    loader = Loader(joined(), 4)
    for record in range(9):
        found = loader.find((component, record), within=range(40))
        assert found == looked_up(loader, 40, (component, record))
        assert found or component == "0"


def test_orders_that_repeat_and_pin_are_turned_round(way: str) -> None:
    base = Dataset(range(11), seed=3).shuffle()
    for ds in [
        base.repeat(3)[4:30:2].shuffle(name="again").repeat(),
        base[::-1].repeat(2).shuffle(name="again", reshuffle=False),
        base.repeat().repeat(),
        base[:0],
    ]:
        loader = Loader(ds, 3)
        for record in range(11) if len(ds.head(1)) else []:
            assert loader.find(record, within=range(30)) == looked_up(loader, 30, ("", record))


def test_steps_gone_by_are_found_and_skipped_ones_are_not() -> None:
    loader = Loader(Dataset(range(8)).repeat(), 4)
    assert loader.find(0) == []
    for _ in range(5):
        next(loader)
    assert loader.find(0) == [0, 2, 4]
    loader.skip(range(2, 4))
    assert loader.find(0) == [0, 4]
    with pytest.raises(PositionError, match=r"within\(5\): give ranges"):
        loader.find(0, within=5)  # pyright: ignore[reportArgumentType]


def test_several_records_are_found_at_once() -> None:
    loader = Loader(Dataset(range(40), seed=1).shuffle(), 4)
    rows = [*loader.where(3)[:2], loader.where(5)[0]]
    assert loader.find(*rows, within=range(10)) == [3, 5]
    assert loader.find(loader.where(7), within=range(10)) == [7]
    assert loader.find(range(40), within=range(10)) == list(range(10))


def test_documents_of_packed_rows_are_found() -> None:
    docs = Dataset([np.full(3, i) for i in range(30)], seed=1).shuffle()
    loader = Loader(docs.pack(8, block=8), 2)
    segment = loader.where(2)[1].segments[1]
    steps = loader.find(segment, within=range(5))
    assert 2 in steps
    assert steps == looked_up(loader, 5, ("", segment.row.record))


def test_files_name_records(files: Files) -> None:
    loader = Loader(Dataset(files.array_record(40), seed=1).shuffle(), 4)
    row = loader.where(6)[2]
    assert loader.find((row.file, row.file_record), within=range(10)) == [6]
    assert loader.find((Path(row.file).name, row.file_record), within=range(10)) == [6]
    assert loader.find(row, within=range(10)) == [6]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (60, r"record 60 lies outside of 0\.\.59"),
        (-1, r"record -1 lies outside"),
        (range(50, 70), r"range\(50, 70\) lies outside"),
        (("en", 3), r"no component 'en', and no file 'en'"),
        (("60.parquet", 60), r"names no one record: '60\.parquet' holds records 0\.\.59"),
        ("60.parquet", "names no record: give its number"),
        (1.5, "names no record"),
        (("", "a"), r"'a' names no records: give a number, or range"),
    ],
)
def test_what_names_no_record_is_refused(files: Files, given: Any, why: str) -> None:
    with pytest.raises(PositionError, match=why):
        Loader(Dataset(files.parquet(60)), 4).find(given)


def test_a_record_of_several_components_is_asked_for_by_name() -> None:
    with pytest.raises(PositionError, match=r"record 3 of which component\?.*'0', '1/a', '1/b'"):
        Loader(joined(), 4).find(3)


def test_files_lie_in_runs(files: Files) -> None:
    from pipeline.provenance.records import file_runs

    source = files.array_record(40)
    runs = file_runs(source)
    assert [(stop - start) for _, start, stop in runs] == [14, 13, 13]
    for file, start, stop in runs:
        assert source.where(np.array([start, stop - 1])) == [(file, 0), (file, stop - start - 1)]


@examples(6)
@given(
    anything(),
    st.sampled_from([4, 7]),
    st.integers(0, 6),
    st.lists(st.integers(0, 59), min_size=1, max_size=3),
    st.integers(0, 59),
)
def test_find_agrees_with_where_after_records_are_left_out(
    files: Files, recipe: Any, size: int, since: int, bad: list[int], number: int
) -> None:
    ds = build(files, recipe)
    ds = (ds.lanes(1) if ds.counted else ds).repeat()
    assume(gives_rows(ds) and all(len(c.source) for c in ds.components))
    loader, record, few = Loader(ds, size), a_record(ds, number), finding.FEW
    loader.seek(since)
    loader.skip(records=[a_record(ds, k) for k in bad])
    try:
        expected = looked_up(loader, 9, record)
        for finding.FEW in (0, few):
            assert loader.find(record, within=range(9)) == expected
    except (PositionError, StreamEndError):
        return  # nothing is left
    finally:
        finding.FEW = few


class Vast:
    """More rows than anybody looks at."""

    def __len__(self) -> int:
        return 10**9

    def read(self, indices: Any) -> Any:
        return indices.tolist()


def test_records_are_found_by_arithmetic_after_others_were_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looking = IndexedStream.origins

    def few(stream: IndexedStream, start: int, stop: int) -> Any:
        assert stop - start < 100
        return looking(stream, start, stop)

    monkeypatch.setattr(IndexedStream, "origins", few)
    loader = Loader(Dataset(Vast(), seed=1).shuffle().repeat(), 64)
    bad = loader.where(3 * 10**7)[5].record
    loader.skip(records=[bad])
    loader.seek(4 * 10**7)
    instead = loader.where(3 * 10**7)[5].record
    assert 3 * 10**7 in loader.find(instead)
    assert not loader.find(bad)
