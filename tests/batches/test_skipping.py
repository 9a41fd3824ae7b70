"""Skipped steps: they mean rows, whatever batches are read after them, and cost no more if many."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, example, given
from hypothesis import strategies as st

from pipeline import Dataset, Loader, merge
from pipeline.errors import BatchError, PositionError, StateError
from tests.examples import examples

N = 23


def every(row: Any) -> bool:
    return row % 3 != 1


def dataset(kind: str) -> Dataset:
    ds = Dataset(range(N), seed=3).shuffle()
    counted = kind.startswith("counted")
    ds = ds.filter(every, block=5) if counted else ds
    ds = ds.lanes(2) if kind.endswith("lanes") else ds
    return ds if kind.endswith("finite") else ds.repeat()


KINDS = ("indexed", "indexed finite", "counted", "counted finite")
SIZES = st.sampled_from([1, 2, 3, 4, 8, [(0, 2), (3, 4)], [(0, 4), (5, 2), (9, 6)]])
RUNS = st.lists(
    st.tuples(SIZES, st.integers(0, 5), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)))),
    min_size=2,
    max_size=4,
)


def rows_of(loader: Loader, step: int) -> list[tuple[int, int]]:
    return [(row.epoch, row.record) for row in loader.where(step)]


def delivered(loader: Loader, steps: int) -> list[tuple[int, int]]:
    rows: list[tuple[int, int]] = []
    for _ in range(steps):
        next(loader)
        rows += [(row.epoch, row.record) for row in loader.where()]
    return rows


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@examples(10)
@given(RUNS)
@example([(4, 3, [(0, 1), (4, 1)]), (3, 0, [(1, 1)]), (4, 1, [])])
@example([(4, 2, [(1, 2)]), (8, 3, [])])
@example([(4, 0, [(1, 4), (9, 2)]), (2, 5, [(2, 3)]), (8, 5, []), (3, 5, [])])
@example([(2, 3, [(9, 4)]), ([(0, 4), (5, 2), (9, 6)], 5, [(9, 4)]), (8, 5, [])])
def test_rows_of_skipped_steps_never_come_and_all_others_do(kind: str, runs: Any) -> None:
    ds = dataset(kind)
    skipped: set[tuple[int, int]] = set()
    seen: list[tuple[int, int]] = []
    state = None
    for size, steps, skips in runs:
        loader = Loader(ds, size)
        if state is not None:
            loader.load_state_dict(state)
        for ahead, count in skips:
            first = loader.step + ahead
            for step in range(first, first + count):
                skipped |= set(rows_of(loader, step))
            loader.skip(range(first, first + count))
        seen += delivered(loader, steps)
        state = json.loads(json.dumps(loader.state_dict()))
    last = Loader(ds, 5)
    last.load_state_dict(state)  # pyright: ignore[reportArgumentType]
    seen += delivered(last, 12)
    plain = Loader(ds, 1)
    expected: list[tuple[int, int]] = []
    while len(expected) < len(seen):
        expected += [row for row in delivered(plain, 1) if row not in skipped]
    assert seen == expected[: len(seen)]


@examples(6, phases=[Phase.explicit, Phase.generate])
@given(RUNS.map(lambda runs: [(8 if isinstance(s, int) else s, n, k) for s, n, k in runs]))
def test_lanes_skip_their_own_rows_on_any_hosts(runs: Any) -> None:
    ds = dataset("counted lanes")

    def halves(loaders: list[Loader], steps: int, out: list[list[Any]]) -> None:
        for _ in range(steps):
            rows: list[Any] = []
            for loader in loaders:
                next(loader)
                rows += [(row.epoch, row.record) for row in loader.where()]
            for lane in range(2):
                out[lane] += rows[lane * len(rows) // 2 : (lane + 1) * len(rows) // 2]

    skipped: set[tuple[int, int]] = set()
    seen: list[list[Any]] = [[], []]
    state = Loader(ds, 4).state_dict()
    for i, (size, steps, skips) in enumerate([*runs, (4, 9, [])]):
        hosts = 1 + i % 2
        size = [(0, 4), (5, 8)] if isinstance(size, list) else size
        loaders = [Loader(ds, size, host=h, hosts=hosts) for h in range(hosts)]
        for loader in loaders:
            loader.load_state_dict(state)
            named = [range(loader.step + n, loader.step + n + count) for n, count in skips]
            skipped |= {row for steps_ in named for k in steps_ for row in rows_of(loader, k)}
            loader.skip(*named)
        halves(loaders, steps, seen)
        state = json.loads(json.dumps(merge([loader.state_dict() for loader in loaders])))
    expected: list[list[Any]] = [[], []]
    plain = Loader(ds, 2)
    while any(len(e) < len(s) for e, s in zip(expected, seen, strict=True)):
        more: list[list[Any]] = [[], []]
        halves([plain], 1, more)
        for lane in range(2):
            expected[lane] += [row for row in more[lane] if row not in skipped]
    assert seen == [e[: len(s)] for e, s in zip(expected, seen, strict=True)]


def test_the_example_of_the_report() -> None:
    ds = Dataset(range(100))
    old, new = Loader(ds, 4), Loader(ds, 8)
    old.skip(range(3, 5))
    assert [next(old).tolist()[0] for _ in range(2)] == [0, 4]
    new.load_state_dict(old.state_dict())
    assert next(new).tolist() == [8, 9, 10, 11, 20, 21, 22, 23]
    assert new.step == 3
    same = Loader(ds, 4)
    same.load_state_dict(old.state_dict())
    assert [next(same)[0] for _ in range(2)] == [8, 20]
    assert same.step == 6


def test_a_schedule_edited_on_resume_keeps_what_was_skipped() -> None:
    for ds in (Dataset(range(100)), Dataset(range(100)).filter(lambda x: True)):
        old = Loader(ds, 4)
        old.skip(range(12, 14))
        _ = [next(old) for _ in range(10)]
        new = Loader(ds, [(0, 4), (10, 8)])
        new.load_state_dict(old.state_dict())
        assert next(new).tolist() == [*range(40, 48)]
        assert next(new).tolist() == [*range(56, 64)]
        assert new.step == 12
        new.seek(3)
        assert next(new).tolist() == [12, 13, 14, 15]


def test_a_pass_that_is_cut_out_wholly_is_one_without_batches() -> None:
    for ds in (Dataset(range(6)), Dataset(range(6)).filter(lambda x: True)):
        old = Loader(ds, 2)
        old.skip(range(1, 7))
        state = old.state_dict()
        new = Loader(ds, 3)
        new.load_state_dict(state)
        passes = [[b.tolist() for b in new] for _ in range(4)]
        assert passes == [[[0, 1]], [], [[2, 3, 4], [5]], [[0, 1, 2], [3, 4, 5]]]
        new.load_state_dict(state)
        assert [next(new).tolist() for _ in range(3)] == [[0, 1], [2, 3, 4], [5]]
        assert new.epoch == 3


# ---- states of versions that did not save what counted the steps


def old_state(loader: Loader) -> dict[str, Any]:
    state = loader.state_dict()
    steps = [list(s) for skip in state.pop("skips") for s in skip[0]]
    del state["anchor"], state["excluded"]
    if "lanes" not in state:
        del state["rule"]
    return {**state, "version": 2, "since": 0, "skips": steps}


@pytest.mark.parametrize("kind", ["indexed", "counted"])
def test_an_old_state_tells_its_batch_size_by_its_rows(kind: str) -> None:
    old = Loader(dataset(kind), 4)
    _ = [next(old) for _ in range(2)]
    old.skip(range(3, 5))
    for size in (4, 8):
        one, other = Loader(dataset(kind), size), Loader(dataset(kind), size)
        one.load_state_dict(old.state_dict())
        other.load_state_dict(old_state(old))
        assert [next(one).tolist() for _ in range(4)] == [next(other).tolist() for _ in range(4)]


def test_an_old_state_that_does_not_tell_is_refused_under_other_sizes() -> None:
    ds = Dataset(range(100)).repeat()
    old = Loader(ds, [(0, 4), (2, 3)])
    _ = [next(old) for _ in range(3)]
    old.skip(range(5, 7))
    with pytest.raises(StateError, match=r"older Lockstep .* Resume it once with the batch size"):
        Loader(ds, 8).load_state_dict(old_state(old))
    same = Loader(ds, [(0, 4), (2, 3)])
    same.load_state_dict(old_state(old))
    assert [next(same)[0] for _ in range(3)] == [11, 14, 23]


# ---- what it costs


@pytest.mark.parametrize("ds", [Dataset(range(3)), Dataset(range(3)).repeat(), Dataset(range(1))])
def test_ranges_cost_their_number_not_their_length(ds: Dataset) -> None:
    loader = Loader(ds, 2)
    loader.skip(range(1, 1 << 47), range((1 << 47) + 1, 1 << 48))
    started = time.process_time()
    next(loader)
    next(loader)
    assert loader.step > 1 << 47
    loader.seek(5)
    assert next(loader) is not None
    other = Loader(ds, 1)
    loader.seek(0)
    next(loader)
    other.load_state_dict(loader.state_dict())
    next(other)
    other.seek(other.step + (1 << 40))
    next(other)
    assert time.process_time() - started < 2


def test_many_ranges_are_looked_at_by_bisection() -> None:
    loader = Loader(Dataset(np.arange(1 << 20)), 4)
    loader.skip(*(range(3 * i, 3 * i + 1) for i in range(20_000)))
    started = time.process_time()
    assert [next(loader)[0] for _ in range(200)] == [4 * (1 + i + i // 2) for i in range(200)]
    assert time.process_time() - started < 2


def test_a_step_whose_rows_cannot_be_counted_is_refused() -> None:
    loader = Loader(Dataset(np.arange(1000)).repeat(), 10**7)
    for ask in (loader.seek, loader.where, loader.__getitem__):
        with pytest.raises(PositionError, match=r"rows are counted up to 2\*\*62"):
            ask(2**48)
    assert loader.step == 0
    with pytest.raises(PositionError, match=r"below 2\*\*48"):
        loader.skip(range(10**30))


def test_a_dataset_without_rows_has_no_step_to_skip() -> None:
    loader = Loader(Dataset([]), 2)
    loader.skip(range(5))
    assert list(loader) == []
    with pytest.raises(StopIteration):
        next(loader)


EMPTY: dict[str, Any] = {
    "drop": lambda ds: ds.filter(lambda x: x < 2),
    "keep": lambda ds: ds.filter(lambda x: False),
    "pad": lambda ds: ds.flat_map(lambda x: []),
}


@pytest.mark.parametrize("steps", [range(1, 2), range(2, 3), range(1, 5)])
@pytest.mark.parametrize("remainder", list(EMPTY))
def test_passes_without_a_batch_end_also_where_steps_were_skipped(
    remainder: Any, steps: range
) -> None:
    ds = EMPTY[remainder](Dataset(range(4)))
    ds = ds.map(lambda x: {"x": x}) if remainder == "pad" else ds
    old, new = Loader(ds, 8, remainder=remainder), Loader(ds, 3, remainder=remainder)
    old.skip(steps)
    new.load_state_dict(old.state_dict())
    with pytest.raises((BatchError, StopIteration)):
        next(new)


def test_a_step_before_a_state_of_one_s_own_batches_is_said_to_be_that() -> None:
    ds = Dataset(range(400)).filter(lambda x: x % 2 == 0)
    one, other, last = Loader(ds, 1), Loader(ds, 5), Loader(ds, 5)
    for _ in range(4):
        next(one)
    other.load_state_dict(one.state_dict())
    for _ in range(7):
        next(other)
    last.load_state_dict(other.state_dict())
    with pytest.raises(PositionError, match=r"step 9 .*step 11, where .* since step 4 only"):
        last.seek(9)
    with pytest.raises(PositionError, match=r"step 3 .*took over a state of other batches"):
        last.seek(3)
