"""Records and files left out of a run: from a step on, on any hosts, after every resume."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline import Dataset, Loader, Threads, concatenate, merge, mix, zip_datasets
from pipeline.batches import substitutes, without
from pipeline.debug.digest import digest
from pipeline.errors import PipelineError, PositionError, StateError, StreamEndError
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
from tests.examples import examples
from tests.provenance.test_find import records


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


def shown(loader: Loader, steps: range) -> set[tuple[str, int]]:
    return {r for k in steps for row in loader.where(k) for r in records(row)}


@pytest.mark.long
@examples(8)
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
    monkeypatch.setattr(without, "PATIENCE", 500)


@pytest.mark.long
@examples(10)
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


@examples(10)
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


@pytest.mark.long
@examples(5)
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
    monkeypatch.setattr(substitutes, "TRIES", 0)
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


def shares(loader: Loader, steps: range) -> Counter[str]:
    return Counter(row.component for k in steps for row in loader.where(k))


def test_shares_of_a_mix_hold_where_records_of_one_are_left_out() -> None:
    parts = {"a": Dataset(range(900)).shuffle(), "b": Dataset(range(90)).shuffle().repeat()}
    loader = Loader(mix(parts, {"a": 9, "b": 1}), 50)
    before = shares(loader, range(18))
    loader.skip(records=("b", range(45)))
    assert shares(loader, range(18)) == before
    left = Counter(row.record for k in range(18) for row in loader.where(k) if row.component == "b")
    assert min(left) >= 45
    assert max(left.values()) < 12
    rare = Loader(mix(parts, {"a": 99, "b": 1}), 50)
    rare.skip(records=("b", range(45)))
    assert shares(rare, range(16)) == {"a": 792, "b": 8}
    rare.skip(records=("b", range(90)))  # none of it is left: others stand for it
    assert shares(rare, range(16)) == {"a": 800}


def test_what_stands_for_left_out_rows_of_a_mix_stays_when_weights_change() -> None:
    parts = {n: Dataset({"x": np.arange(40)}, seed=i).shuffle() for i, n in enumerate("ab")}
    loader = Loader(mix(parts, {"a": 3, "b": 1}, stop="never"), 8)
    loader.skip(records=[("a", range(0, 20)), ("b", 7)])
    whole = [(digest(next(loader)), list(loader.where(k))) for k in range(12)]
    edited = [(0, {"a": 3, "b": 1}), (loader.frontier, {"a": 1, "b": 5})]
    resumed = Loader(mix(parts, edited, stop="never"), 8)
    resumed.load_state_dict(loader.state_dict())
    assert [(digest(resumed[k]), list(resumed.where(k))) for k in range(12)] == whole


@pytest.mark.parametrize("stop", ["never", "all"])
def test_what_stands_for_left_out_rows_of_a_mix_is_of_their_epoch(stop: Any) -> None:
    parts = {n: Dataset({"x": np.arange(40)}, seed=i).shuffle() for i, n in enumerate("ab")}
    ds = mix(parts, {"a": 3, "b": 1}, stop=stop).repeat(2 if stop == "all" else None)
    plain, loader = Loader(ds, 8), Loader(ds, 8)
    loader.skip(records=[("a", range(0, 10))])
    for step in range(30):
        was, now = plain.where(step), loader.where(step)
        assert [(r.component, r.epoch) for r in now] == [(r.component, r.epoch) for r in was]


def test_a_counted_mix_goes_on_with_its_next_rows() -> None:
    parts = {"a": Dataset(range(60)).filter(lambda x: x % 2 == 0), "b": Dataset(range(60))}
    ds = mix(parts, {"a": 1, "b": 1}).lanes(2).repeat()
    loader = Loader(ds, 4)
    hosts = [Loader(ds, 4, host=h, hosts=2) for h in range(2)]
    plain = [row for k in range(6) for row in loader.where(k)]
    bad = plain[8], plain[13]
    for each in (loader, *hosts):
        each.seek(2)
        each.skip(records=bad)
    gone = {r for row in bad for r in records(row)}
    assert not gone & shown(loader, range(2, 12))
    assert [list(loader.where(k)) for k in range(2)] == [plain[:4], plain[4:8]]
    beneath = {r for r in shown(Loader(ds, 4), range(12)) if r[1] < 20}
    assert beneath - shown(loader, range(12)) == gone
    for k in range(2, 8):
        assert [row for h in hosts for row in h.where(k)] == list(loader.where(k))


def test_a_zipped_row_goes_with_any_of_its_records() -> None:
    left, right = Dataset(range(40)).shuffle(), Dataset(range(100, 140)).shuffle()
    ds = zip_datasets({"x": left, "y": right, "z": left})
    loader = Loader(ds.repeat(), 8)
    row = loader.where(2)[3]
    assert [other.component for other in row.beside] == ["y", "z"]
    values = loader[2]
    assert [values[other.component][3] % 100 for other in row.beside] == [
        other.record for other in row.beside
    ]
    assert str(loader.where(2)).splitlines()[11].split() == [
        "3", "0", str(row.beside[0].record), "MemorySource", "y",
    ]  # fmt: skip
    assert loader.find(("y", row.beside[0].record), within=range(5)) == [2]
    loader.skip(records=("y", row.beside[0].record))
    batches = [loader[k] for k in range(10)]
    assert all(100 + row.beside[0].record not in batch["y"] for batch in batches)
    counted = Loader(ds.filter(lambda row: row["x"] % 2 == 0).repeat(), 4)
    counted.skip(records=("z", range(20)))
    seen = {int(z) for k in range(9) for z in counted[k]["z"]}
    assert len(seen) > 5
    assert min(seen) >= 20


def test_what_stands_for_a_bad_record_is_not_an_excluded_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def half(x: int) -> int:
        if x % 2:
            raise ValueError(f"{x} is odd")
        return x

    ds = Dataset(range(24)).map(half).on_error("skip")
    loader = Loader(ds.repeat(), 6)
    assert next(loader).tolist() == [0, 2, 2, 4, 4, 6]
    loader.skip(records=[4, range(7, 21)])
    batches = [next(loader).tolist() for _ in range(6)]
    assert {x for batch in batches for x in batch} == {0, 2, 6, 22}
    assert [loader[k].tolist() for k in range(1, 7)] == batches
    for k in range(1, 7):
        assert [row.record for row in loader.where(k)] == batches[k - 1]
    with Loader(ds.repeat(), 6, workers=Threads(2), ahead=1 << 10) as ahead:
        ahead.load_state_dict(loader.state_dict())
        assert run(ahead, 4) == run(loader, 4)
    loader.skip(records=[0, 2, 6, 22])
    monkeypatch.setattr(substitutes, "TRIES", 4)
    with pytest.raises(PositionError, match=r"have no others to stand for them.*exclude fewer"):
        next(loader)


def test_later_exclusions_join_earlier_ones() -> None:
    loader = Loader(Dataset(range(30), seed=1).shuffle().repeat(), 5, workers=Threads(2))
    with loader:
        _ = next(loader)
        loader.skip(records=[1, 2])
        _ = next(loader)
        loader.skip(records=range(2, 5))
        state = loader.state_dict()
        assert state["excluded"] == [[1, "", [[1, 3]]], [2, "", [[2, 5]]]]
        assert state["version"] == 4
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
    with pytest.raises(StreamEndError, match=r"rows of lane 0.* excluded records.*: exclude fewer"):
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
