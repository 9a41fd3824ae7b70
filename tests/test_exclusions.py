"""Records and files left out of a run: from a step on, on any hosts, after every resume."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline import Dataset, Loader, Threads, concatenate, merge
from pipeline.debug.digest import digest
from pipeline.errors import PipelineError, PositionError, StateError, StreamEndError
from pipeline.streams import counted as counted_stream
from pipeline.streams import replace
from tests.datasets import (
    Files,
    a_record,
    anything,
    build,
    counted,
    gives_rows,
    indexed,
    joined,
    run,
)
from tests.test_finding import records


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


def shown(loader: Loader, steps: range) -> set[tuple[str, int]]:
    return {r for k in steps for row in loader.where(k) for r in records(row)}


@settings(max_examples=30)
@given(anything(), st.integers(0, 6), st.lists(st.integers(0, 59), min_size=1, max_size=4))
def test_excluded_records_never_come_and_what_was_stays(
    files: Files, recipe: Any, since: int, given: list[int]
) -> None:
    ds = build(files, recipe).repeat()
    assume(gives_rows(ds))
    assume(all(len(c.source) for c in ds.components))
    bad = [a_record(ds, number) for number in given]
    whole = run(Loader(ds, 4), 10)
    loader = Loader(ds, 4)
    run(loader, since)
    try:
        loader.skip(records=bad)
        rest = run(loader, 6)
    except PositionError:
        assert not ds.counted  # all of an epoch is excluded
        return
    if "barren" in [*whole, *rest]:
        assert ds.counted
        return
    steps = range(since, since + 6)
    assert not set(bad) & shown(loader, steps)
    assert [digest(loader[k]) for k in range(since)] == whole[:since]
    assert [digest(loader[k]) for k in steps] == rest
    loader.seek(since // 2)
    assert run(loader, since - since // 2 + 6) == whole[since // 2 : since] + rest


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted_stream, "PATIENCE", 500)


@settings(max_examples=20)
@given(anything(), st.integers(0, 4), st.integers(1, 4), st.integers(0, 59))
def test_exclusions_survive_resumes(
    files: Files, recipe: Any, since: int, more: int, record: int
) -> None:
    ds = build(files, recipe).repeat()
    assume(gives_rows(ds) and all(len(c.source) > 8 for c in ds.components))
    loader = Loader(ds, 4)
    run(loader, since)
    loader.skip(records=a_record(ds, record))
    try:
        run(loader, more)
    except PipelineError:
        return
    state = json.loads(json.dumps(loader.state_dict()))
    again = Loader(ds, 4)
    run(again, 2)
    again.load_state_dict(state)
    assert again.state_dict() == loader.state_dict()
    assert run(again, 4) == run(loader, 4)
    again.seek(0)
    loader.seek(0)
    assert run(again, since + more) == run(loader, since + more)


@settings(max_examples=20)
@given(indexed(), st.integers(0, 39))
def test_row_split_hosts_leave_out_the_same(files: Files, recipe: Any, record: int) -> None:
    ds = build(files, recipe).repeat()
    assume(all(len(c.source) for c in ds.components))
    bad = a_record(ds, record)
    loaders = [Loader(ds, 4), *(Loader(ds, 4, host=h, hosts=2) for h in range(2))]
    for loader in loaders:
        run(loader, 2)
        loader.skip(records=[bad])
    try:
        batches = [next(loaders[0]) for _ in range(4)]
    except PositionError:
        return
    parts = [[next(loader) for _ in range(4)] for loader in loaders[1:]]
    assert [digest(joined(list(p))) for p in zip(*parts, strict=True)] == [
        digest(b) for b in batches
    ]
    assert loaders[1].state_dict() == loaders[0].state_dict()


@settings(max_examples=15)
@given(counted(), st.integers(0, 59))
def test_lane_split_hosts_leave_out_the_same(files: Files, recipe: Any, record: int) -> None:
    ds = build(files, recipe).lanes(4).repeat()
    assume(gives_rows(ds))
    assume(all(len(c.source) for c in ds.components))
    bad = a_record(ds, record)
    loaders = [Loader(ds, 8), *(Loader(ds, 8, host=h, hosts=2) for h in range(2))]
    for loader in loaders:
        run(loader, 2)
        loader.skip(records=[bad])
    try:
        batches = [next(loaders[0]) for _ in range(3)]
    except PipelineError:
        return
    parts = [[next(loader) for _ in range(3)] for loader in loaders[1:]]
    assert [digest(joined(list(p))) for p in zip(*parts, strict=True)] == [
        digest(b) for b in batches
    ]
    assert merge([x.state_dict() for x in loaders[1:]]) == loaders[0].state_dict()


# ---- what stands for them


def test_a_file_left_out_is_replaced_by_rows_from_all_over_the_epoch(files: Files) -> None:
    source = files.array_record(400)
    loader = Loader(Dataset(source, seed=1), 20)
    file = loader.where(0)[0].file
    assert loader.where(6)[13].file == file != loader.where(6)[14].file
    loader.skip(files=[Path(file).name])
    rows = [row.record for k in range(20) for row in loader.where(k)]
    assert len(rows) == 400
    assert rows[134:] == list(range(134, 400))
    times = Counter(rows[:134])
    assert min(times) >= 134
    assert max(times.values()) <= 4
    assert len(times) > 90
    later = [row.record for k in range(20, 27) for row in loader.where(k)]
    assert later[:134] != rows[:134]
    assert loader.find(0, within=range(40)) == []


def test_what_chance_does_not_find_is_walked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Loader(Dataset(range(10_000)), 100)
    loader.skip(records=[range(7_000), range(7_001, 10_000)])
    assert {row.record for row in loader.where(3)} == {7_000}
    monkeypatch.setattr(replace, "TRIES", 0)
    loader.skip(records=[7_000])
    with pytest.raises(PositionError, match=r"all 10000 rows of an epoch are excluded from step 0"):
        next(loader)


def test_a_short_pass_is_made_good_within_its_epoch() -> None:
    ds = Dataset(range(10), seed=1).shuffle().repeat(3)[:25]
    loader = Loader(ds, 4)
    loader.skip(records=[3, 4])
    rows = [x for batch in loader for x in batch.tolist()]
    assert len(rows) == 25
    assert not {3, 4} & set(rows)


def test_a_counted_dataset_goes_on_with_its_next_row() -> None:
    ds = Dataset(range(20)).filter(lambda x: x % 2 == 0)
    loader = Loader(ds, 3)
    assert next(loader).tolist() == [0, 2, 4]
    loader.skip(records=[2, 8, 18])
    assert [b.tolist() for b in loader] == [[6, 10, 12], [14, 16]]
    assert (loader.epoch, loader.step) == (1, 3)
    assert [b.tolist() for b in loader] == [[0, 4, 6], [10, 12, 14], [16]]
    loader.seek(0)
    assert next(loader).tolist() == [0, 2, 4]


def test_a_packed_row_goes_with_any_of_its_documents() -> None:
    docs = Dataset([np.full(3, i) for i in range(40)]).pack(8, block=40).repeat()
    loader = Loader(docs, 2)
    second = loader.where(1)[0].segments[1].row.record
    loader.skip(records=loader.where(1)[0].segments[1])
    rows = [row for k in range(6) for row in loader.where(k)]
    assert all(s.row.record != second for row in rows for s in row.segments)
    assert len(rows) == 12


def test_later_exclusions_join_earlier_ones() -> None:
    loader = Loader(Dataset(range(30), seed=1).shuffle().repeat(), 5, workers=Threads(2))
    with loader:
        _ = next(loader)
        loader.skip(records=[1, 2])
        _ = next(loader)
        loader.skip(records=range(2, 5))
        state = loader.state_dict()
        assert state["excluded"] == [[1, "", [[1, 3]]], [2, "", [[2, 5]]]]
        assert state["version"] == 3
        assert not {("", 1), ("", 2)} & shown(loader, range(1, 30))
        assert not {("", 3), ("", 4)} & shown(loader, range(2, 30))


def test_components_are_excluded_by_name() -> None:
    ds = concatenate([Dataset(range(10)), Dataset(range(10))]).shuffle().repeat()
    loader = Loader(ds, 4)
    loader.skip(records=[("1", range(5, 10)), ("0", 2)])
    seen = {(row.component, row.record) for k in range(60) for row in loader.where(k)}
    assert seen == {("0", r) for r in range(10) if r != 2} | {("1", r) for r in range(5)}


def test_an_endless_exclusion_ends_in_an_error() -> None:
    loader = Loader(Dataset(range(9)).filter(lambda x: x > 3).repeat(), 2)
    loader.skip(records=range(4, 9))
    with pytest.raises(StreamEndError, match=r"rows of lane 0 are excluded: exclude fewer"):
        next(loader)


def test_mistakes_change_nothing(files: Files) -> None:
    loader = Loader(Dataset(files.parquet(60)), 4)
    before = loader.state_dict()
    for wrong, why in [
        ({"records": [60]}, "record 60 lies outside"),
        ({"files": ["nope.parquet"]}, r"no file 'nope\.parquet' holds records .* files are /"),
        ({"records": ["a"]}, "names no record"),
    ]:
        with pytest.raises(PositionError, match=why):
            loader.skip(range(3, 5), **wrong)
        assert loader.state_dict() == before
    with pytest.raises(PositionError, match="none has files"):
        Loader(Dataset([1]), 1).skip(files="*")


def test_states_that_lost_or_tore_their_exclusions_are_refused() -> None:
    loader = Loader(Dataset(range(9)), 2)
    loader.skip(records=[3])
    state = loader.state_dict()
    lost = {k: v for k, v in state.items() if k != "excluded"}
    with pytest.raises(StateError, match=r"lost its fields \['excluded'\]"):
        Loader(Dataset(range(9)), 2).load_state_dict(lost)
    with pytest.raises(StateError, match="damaged"):
        Loader(Dataset(range(9)), 2).load_state_dict({**state, "excluded": [[0, ""]]})


def test_what_was_known_of_later_steps_is_forgotten() -> None:
    ds = Dataset(range(100)).filter(lambda x: True).repeat()
    loader, plain = Loader(ds, 4), Loader(ds, 4)
    run(loader, 9)
    for one in (loader, plain):
        one.seek(2)
        one.skip(records=range(8, 20))
    loader.seek(8)
    for _ in range(6):
        next(plain)
    assert next(loader).tolist() == next(plain).tolist() == [44, 45, 46, 47]
