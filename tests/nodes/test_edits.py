"""Schedules that are edited on resume: rows are those of the edited mix, or the edit is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline import Dataset, Loader, merge, mix
from pipeline.errors import MismatchError, PipelineError
from pipeline.types import ENDLESS
from tests.examples import examples

Schedule = list[tuple[int, dict[str, float]]]
NAMES = "abc"


def _part(name: str, n: int, kind: str) -> Dataset:
    ds = Dataset({"x": 1000 * ord(name) + np.arange(n)}, seed=3).shuffle(name=f"order {name}")
    if kind == "kept":
        return ds.filter(lambda row: row["x"] % 5 != 3, block=3, name=f"kept {name}")
    if kind == "copied":
        return ds.flat_map(lambda row: [row] * int(row["x"] % 3), block=3, name=f"copied {name}")
    return ds.repeat() if kind == "endless" else ds


def _packed(ds: Dataset) -> Dataset:
    tokens = ds.map(lambda row: np.full(1 + row["x"] % 3, row["x"]), name="tokens")
    return tokens.pack(4, block=5).map(lambda row: {"x": row["tokens"]}, name="x")


ABOVE: dict[str, Callable[[Dataset], Dataset]] = {
    "nothing": lambda ds: ds,
    "map": lambda ds: ds.map(lambda row: {"x": row["x"] + 1}, name="up"),
    "filter": lambda ds: ds.filter(lambda row: row["x"] % 4 != 1, block=5, name="up"),
    "flat_map": lambda ds: ds.flat_map(lambda row: [row] * int(row["x"] % 3), block=4, name="up"),
    "pack": _packed,
    "in a mix": lambda ds: mix({"in": ds, "o": _part("o", 16, "all")}, {"in": 2, "o": 1}, "first"),
    "sliced": lambda ds: ds if ds.counted else ds[:20].filter(lambda row: True, name="up"),
}

_weights = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0.3, 1, 2, 5]), min_size=1)
_starts = st.lists(st.integers(1, 40), max_size=1)


def _schedule(draw: Callable[[Any], Any], start: int) -> Schedule:
    starts = [start, *(start + more for more in draw(_starts))]
    return [(row, draw(_weights)) for row in starts]


def _rows(batch: Any) -> list[Any]:
    return batch["x"].tolist()


class _Hosts:
    # all hosts of a run, as one loader
    def __init__(self, ds: Dataset, hosts: int, **options: Any) -> None:
        shares: list[dict[str, Any]] = [{"host": h, "hosts": hosts} for h in range(hosts)]
        shares = shares if hosts > 1 else [{}]
        self.loaders = [Loader(ds, 8, **options, **share) for share in shares]

    def batches(self, steps: int) -> list[list[Any]]:
        found = [[next(loader, None) for loader in self.loaders] for _ in range(steps)]
        return [[row for b in batch if b is not None for row in _rows(b)] for batch in found]

    def state(self) -> dict[str, Any]:
        states = [json.loads(json.dumps(loader.state_dict())) for loader in self.loaders]
        return states[0] if len(states) == 1 else merge(states)

    def load(self, state: Any) -> None:
        for loader in self.loaders:
            loader.load_state_dict(state)


@examples(30, deadline=None)
@given(data=st.data())
def test_an_edit_gives_the_rows_of_the_edited_mix_or_is_refused(data: st.DataObject) -> None:
    draw = data.draw
    sizes = {n: draw(st.sampled_from([1, 3, 7, 16, 30])) for n in NAMES}
    kinds = {n: draw(st.sampled_from(["all", "all", "kept", "copied", "endless"])) for n in NAMES}
    stop: Any = draw(st.sampled_from(["first", "all", "never"]))
    above = ABOVE[draw(st.sampled_from(sorted(ABOVE)))]
    lanes, repeats = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 1, 2, None]))
    steps = draw(st.sampled_from([None, None, 2]))
    remainder = draw(st.sampled_from(["keep", "drop", "pad"]))
    options: dict[str, Any] = {"steps": steps, "remainder": remainder}

    def dataset(schedule: Schedule) -> Dataset:
        live = {n for _, weights in schedule for n in weights}
        parts = {n: _part(n, sizes[n], kinds[n]) for n in NAMES if n in live}
        ds = above(mix(parts, schedule, stop)).repeat(repeats)
        return ds.lanes(lanes) if ds.counted else ds

    def all_steps(schedule: Schedule) -> list[list[Any]]:
        try:
            return _Hosts(dataset(schedule), 1, **options).batches(taken + 6)
        except PipelineError:  # a batch that cannot be made has no rows to compare
            assume(False)
            raise

    old = _schedule(draw, 0)
    taken = draw(st.integers(0, 6))
    before = all_steps(old)[:taken]
    hosts = [h for h in (1, 2) if h == 1 or lanes % h == 0]
    try:
        run = _Hosts(dataset(old), draw(st.sampled_from(hosts)), **options)
    except PipelineError:  # several hosts must end together
        run = _Hosts(dataset(old), 1, **options)
    assume(run.batches(taken) == before)
    state = run.state()
    key = next(name for name in dict(state["frontiers"]) if name in ("in.schedule", "schedule"))
    rows = dict(state["frontiers"])
    row = rows.get("in.schedule", rows[key])
    assume(0 < row < ENDLESS)
    new = [e for e in old if e[0] < row] + _schedule(draw, row + draw(st.sampled_from([0, 0, 1])))
    expected = all_steps(new)
    edited = _Hosts(dataset(new), 1, **options)
    try:
        edited.load(state)
    except MismatchError:
        return
    assert expected[:taken] == before
    assert edited.batches(6) == expected[taken:]


def _two(schedule: Any, stop: Any = "first", kind: str = "all", n: int = 100) -> Dataset:
    return mix({name: _part(name, n, kind) for name in "ab"}, schedule, stop)


@pytest.mark.parametrize("stop", ["first", "all"])
@pytest.mark.parametrize("above", ["filter", "flat_map", "pack"])
def test_the_first_row_settles_a_finite_mix_beneath_blocks(above: str, stop: str) -> None:
    # where blocks begin follows from the length of the mix, and that from all of its weights
    old: Schedule = [(0, {"a": 3, "b": 1})]
    loader = Loader(ABOVE[above](_two(old, stop)), 8)
    assert loader.frontier == 0
    next(loader)
    assert loader.frontier == ENDLESS
    state = loader.state_dict()
    edited = Loader(ABOVE[above](_two([*old, (90, {"b": 1})], stop)), 8)
    with pytest.raises(MismatchError, match=r'schedule\.1.*drawn wholly.*stop="never"'):
        edited.load_state_dict(state)
    # earlier versions saved how far blocks were drawn
    with pytest.raises(MismatchError, match="drawn wholly"):
        edited.load_state_dict({**state, "frontiers": [["schedule", 64]]})
    edited.load_state_dict(state, allow={"schedule.1"})


@pytest.mark.parametrize("kind", ["kept", "endless"])
def test_a_mix_that_does_not_decide_where_blocks_begin_stays_open(kind: str) -> None:
    old: Schedule = [(0, {"a": 3, "b": 1})]
    new: Schedule = [*old, (60, {"b": 1})]
    loader = Loader(ABOVE["filter"](_two(old, kind=kind)), 8)
    before = [_rows(next(loader)) for _ in range(3)]
    assert loader.frontier < 60
    edited = Loader(ABOVE["filter"](_two(new, kind=kind)), 8)
    edited.load_state_dict(loader.state_dict())
    rest = [_rows(batch) for batch, _ in zip(edited, range(8), strict=False)]
    whole = Loader(ABOVE["filter"](_two(new, kind=kind)), 8)
    assert before + rest == [_rows(batch) for batch, _ in zip(whole, range(11), strict=False)]


@pytest.mark.parametrize("above", ["nothing", "filter"])
def test_a_lane_that_ended_settles_a_mix(above: str) -> None:
    # lane 1 has fewer rows: it gives none any more while lane 0 goes on
    a = Dataset({"x": np.arange(11)}).filter(lambda row: row["x"] not in (1, 3, 5), block=1)

    def dataset(schedule: Schedule) -> Dataset:
        parts = {"a": a} if len(schedule) == 1 else {"a": a, "b": _part("b", 40, "all")}
        return ABOVE[above](mix(parts, schedule, "all")).lanes(2)

    loader = Loader(dataset([(0, {"a": 1})]), 4)
    found = [len(_rows(next(loader))) for _ in range(2)]
    assert (found[1] < 4, loader.epoch) == (True, 0) or above == "filter"
    assert loader.frontier == ENDLESS
    with pytest.raises(MismatchError, match="drawn wholly"):
        Loader(dataset([(0, {"a": 1}), (8, {"b": 1})]), 4).load_state_dict(loader.state_dict())


@pytest.mark.parametrize("kind", ["all", "kept"])
def test_a_mix_that_never_ended_may_not_end_once_passes_were_counted(kind: str) -> None:
    def dataset(schedule: Schedule) -> Dataset:
        parts = {"a": _part("a", 30, kind).repeat(), "b": _part("b", 30, kind)}
        live = {name for _, weights in schedule for name in weights}
        return mix({n: p for n, p in parts.items() if n in live}, schedule, "first")

    old: Schedule = [(0, {"a": 1})]
    loader = Loader(dataset(old), 4, steps=2)
    for _ in range(3):
        next(loader)
    assert loader.frontier == 12
    edited = Loader(dataset([*old, (12, {"a": 1, "b": 1})]), 4, steps=2)
    with pytest.raises(MismatchError, match=r"schedule\.1"):
        edited.load_state_dict(loader.state_dict())


@pytest.mark.parametrize("kind", ["all", "kept"])
def test_what_kept_a_pass_from_ending_may_not_be_taken_away(kind: str) -> None:
    # a alone would have ended before row 40
    old: Schedule = [(0, {"a": 1}), (100, {"b": 1})]
    loader = Loader(_two(old, "all", kind, n=20), 8)
    for _ in range(5):
        next(loader)
    assert loader.frontier == 40
    state = loader.state_dict()
    alone = mix({"a": _part("a", 20, kind)}, [(0, {"a": 1})], "all")
    with pytest.raises(MismatchError, match=r"schedule\.1"):
        Loader(alone, 8).load_state_dict(state)
    sooner = _two([(0, {"a": 1}), (40, {"b": 1})], "all", kind, n=20)
    Loader(sooner, 8).load_state_dict(state)


@pytest.mark.parametrize("repeats", [1, 2, None])
def test_a_mix_within_one_that_ends_with_all_its_datasets_is_settled(repeats: int | None) -> None:
    # whether the outer pass has ended depends on whether the inner one holds a further row
    def dataset(stop: Any) -> Dataset:
        inner = _two([(0, {"a": 1, "b": 1})], "all", "kept", n=10)
        both = mix({"in": inner, "o": _part("o", 5, "all")}, {"in": 2, "o": 1}, stop)
        return both.repeat(repeats)

    for stop, row in (("all", ENDLESS), ("never", 6)):
        loader = Loader(dataset(stop), 8)
        assert dict(loader.state_dict()["frontiers"]) == {"schedule": 0, "in.schedule": 0}
        next(loader)
        found = dict(loader.state_dict()["frontiers"])
        assert found["schedule"] == 8
        assert (found["in.schedule"] == ENDLESS) == (row == ENDLESS)
