"""The loader's edges: sizes, hosts, remainders, skips, passes, states, and what it refuses."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, merge
from pipeline.debug.digest import digest
from pipeline.errors import (
    BatchError,
    ChainError,
    CollateError,
    HostsError,
    LanesError,
    LengthError,
    PositionError,
    StateError,
    StreamEndError,
)


def columns(n: int) -> Dataset:
    return Dataset({"x": np.arange(n)})


def values(batches: Any) -> list[list[int]]:
    return [batch["x"].tolist() for batch in batches]


# ---- passes


def test_a_for_loop_is_one_pass_and_the_next_goes_on() -> None:
    loader = Loader(columns(5), 2)
    assert values(loader) == [[0, 1], [2, 3], [4]]
    assert (loader.epoch, loader.step) == (1, 3)
    assert values(loader) == [[0, 1], [2, 3], [4]]


def test_a_broken_off_loop_goes_on_where_it_stood() -> None:
    loader = Loader(columns(6), 2)
    for batch in loader:
        assert batch["x"][0] == 0
        break
    assert values(loader) == [[2, 3], [4, 5]]


def test_remainders() -> None:
    assert values(Loader(columns(5), 2, remainder="drop")) == [[0, 1], [2, 3]]
    padded = list(Loader(columns(5), 2, remainder="pad"))
    assert values(padded) == [[0, 1], [2, 3], [4, 0]]
    assert padded[-1]["mask"].tolist() == [True, False]
    assert len(Loader(columns(5), 2)) == 3
    assert len(Loader(columns(5), 2, remainder="drop")) == 2


def test_steps_end_a_pass() -> None:
    endless = Loader(columns(5).repeat(), 2, steps=2)
    assert values(endless) == [[0, 1], [2, 3]]
    assert values(endless) == [[4, 0], [1, 2]]
    finite = Loader(columns(5), 2, steps=1)
    assert values(finite) + values(finite) == [[0, 1], [0, 1]]
    with pytest.raises(BatchError, match="a pass has 3 batches"):
        Loader(columns(5), 2, steps=4)


def test_a_counted_pass_that_ends_before_its_steps_is_an_error() -> None:
    ds = columns(10).filter(lambda row: bool(row["x"] < 5))
    loader = Loader(ds, 2, steps=4)
    with pytest.raises(StreamEndError, match="steps=4, but pass 0 ends after 2 batches"):
        list(loader)


def test_once_starts_afresh_each_time() -> None:
    loader = Loader(columns(6).shuffle(), 2)
    next(loader)
    once = loader.once()
    assert len(once) == 3
    assert values(once) == values(once) == values(Loader(columns(6).shuffle(), 2))
    assert loader.step == 1


@pytest.mark.parametrize("counted", [False, True])
def test_a_dataset_without_rows_has_passes_without_batches(counted: bool) -> None:
    ds = columns(0 if not counted else 9)
    loader = Loader(ds.filter(lambda row: False) if counted else ds, 2)
    for epoch in range(loader.epoch, 3):
        assert loader.epoch == epoch
        assert list(loader) == []
    with pytest.raises(StopIteration):
        next(loader)


def test_an_endless_stream_that_gives_no_row_is_an_error() -> None:
    loader = Loader(columns(9).filter(lambda row: False).repeat(), 2)
    with pytest.raises(StreamEndError, match="gave no row"):
        next(loader)


def test_lengths_are_known_or_refused() -> None:
    with pytest.raises(LengthError, match="never ends"):
        len(Loader(columns(5).repeat(), 2))
    with pytest.raises(LengthError, match="counted"):
        len(Loader(columns(5).filter(lambda row: True), 2))
    assert len(Loader(columns(5).filter(lambda row: True), 2, steps=2)) == 2


# ---- hosts


def test_batch_size_must_split_over_hosts() -> None:
    with pytest.raises(BatchError, match=r"batch_size=100 .* hosts=8\. Nearest: 96, 104"):
        Loader(columns(500), 100, host=0, hosts=8)


@pytest.mark.parametrize(
    "place", [{"host": 0}, {"hosts": 2}, {"host": 2, "hosts": 2}, {"host": -1, "hosts": 2}]
)
def test_a_place_that_is_none_is_refused(place: dict[str, int]) -> None:
    with pytest.raises(HostsError, match="host"):
        Loader(columns(8), 4, **place)  # pyright: ignore[reportArgumentType]


def test_hosts_need_lanes() -> None:
    ds = Dataset([np.arange(4)] * 50).pack(8).lanes(8).repeat()
    with pytest.raises(LanesError, match=r"pack makes hosts=16 need 16 lanes; this dataset has 8"):
        Loader(ds, 16, host=0, hosts=16)
    with pytest.raises(LanesError, match="Resuming: 1, 2, 4, 8 hosts"):
        Loader(ds, 24, host=0, hosts=3)
    with pytest.raises(BatchError, match=r"lanes=8\. Nearest: 8, 16"):
        Loader(ds, 12)


def test_a_finite_counted_dataset_needs_a_common_end() -> None:
    ds = columns(50).filter(lambda row: bool(row["x"] % 3)).lanes(2)
    with pytest.raises(LanesError, match="finite counted dataset"):
        Loader(ds, 4, host=0, hosts=2)
    Loader(ds, 4, host=0, hosts=2, steps=3)
    Loader(ds, 4, host=0, hosts=2, remainder="pad")


def test_a_host_without_rows_of_a_short_batch_is_refused_at_once() -> None:
    with pytest.raises(BatchError, match="a pass of 5 rows ends with a batch of 1, which does not"):
        Loader(columns(5), 4, host=0, hosts=4)
    parts = [list(Loader(columns(7), 4, host=h, hosts=2))[-1] for h in range(2)]
    assert [p["x"].tolist() for p in parts] == [[4], [5, 6]]


def test_a_host_without_real_rows_of_a_padded_batch_has_its_fields() -> None:
    ds = Dataset([{"x": np.zeros((2, 3), np.float32), "name": "a"}] * 5)
    parts = [list(Loader(ds, 4, host=h, hosts=4, remainder="pad"))[-1] for h in range(4)]
    assert [p["mask"].tolist() for p in parts] == [[True], [False], [False], [False]]
    assert {p["x"].shape for p in parts} == {(1, 2, 3)}
    assert {p["x"].dtype for p in parts} == {np.dtype(np.float32)}


# ---- seek, skip, where


def test_skips_are_never_delivered_and_survive_a_resume() -> None:
    loader = Loader(columns(40), 2)
    loader.skip(range(3, 5), range(4, 8))
    assert values(loader)[2:5] == [[4, 5], [16, 17], [18, 19]]
    loader = Loader(columns(40), 2)
    loader.skip(range(1, 3))
    next(loader)
    assert loader.step == 3
    other = Loader(columns(40), 2, host=0, hosts=2)
    other.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert next(other)["x"].tolist() == [6]
    other.seek(0)
    assert [next(other)["x"][0] for _ in range(2)] == [0, 6]
    assert loader[1]["x"].tolist() == [2, 3]


def test_a_skip_may_cross_passes() -> None:
    loader = Loader(columns(6), 2)
    loader.skip(range(1, 7))
    assert values(loader) == [[0, 1]]
    assert (loader.epoch, loader.step) == (1, 3)
    assert values(loader) == []  # pass 1 is skipped wholly: one without batches
    assert (loader.epoch, loader.step) == (2, 7)
    assert values(loader) == [[2, 3], [4, 5]]


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("skips", [range(2, 4), range(0, 2), range(1, 5), range(3, 7), range(0, 6)])
def test_the_epoch_loop_resumes_right_with_skips(skips: range, counted: bool) -> None:
    ds = columns(4).shuffle()
    ds = ds.filter(lambda row: True) if counted else ds

    def fresh(state: Any = None) -> Loader:
        loader = Loader(ds, 2)
        if state is None:
            loader.skip(skips)
        else:
            loader.load_state_dict(state)
        return loader

    def loop(loader: Loader, most: int = 99) -> list[Any]:
        seen: list[Any] = []
        for epoch in range(loader.epoch, 4):
            for batch in loader:
                seen.append((epoch, batch["x"].tolist()))
                if len(seen) == most:
                    return seen
        return seen

    whole = loop(fresh())
    assert whole
    for stop in range(1, len(whole) + 1):
        loader = fresh()
        first = loop(loader, stop)
        assert first + loop(fresh(loader.state_dict())) == whole


def test_next_goes_over_passes_that_are_skipped() -> None:
    loader = Loader(columns(4), 2)
    loader.skip(range(2, 6))
    assert [next(loader)["x"].tolist() for _ in range(3)] == [[0, 1], [2, 3], [0, 1]]
    assert loader.step == 7


def test_stop_iteration_in_user_code_ends_no_pass() -> None:
    def exhausted(row: Any) -> Any:
        if row["x"] == 5:
            next(iter(()))
        return row

    loader = Loader(columns(12).map(exhausted), 4)
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        list(loader)
    assert loader.step == 1


def test_a_restored_state_is_where_seeks_start_from() -> None:
    asked: list[int] = []

    def seen(row: Any) -> bool:
        asked.append(int(row["x"]))
        return True

    ds = columns(64).filter(seen, block=8).repeat()
    loader = Loader(ds, 8)
    for _ in range(500):
        next(loader)
    other = Loader(ds, 8)
    other.load_state_dict(loader.state_dict())
    asked.clear()
    other.where(500)
    other[501]
    other.skip(range(500, 502))
    next(other)
    assert len(asked) < 60
    assert other.step == 503
    other.seek(0)
    assert next(other)["x"].tolist() == list(range(8))
    other.seek(400)
    asked.clear()
    other.seek(399)
    other.seek(401)
    assert len(asked) < 400


@pytest.mark.parametrize("counted", [False, True])
def test_a_state_past_the_end_under_the_new_rule_begins_the_next_pass(counted: bool) -> None:
    ds = columns(10).filter(lambda row: True) if counted else columns(10)
    old = Loader(ds, 2, remainder="drop")
    for _ in range(4):
        next(old)
    new = Loader(ds, 4, remainder="drop")
    new.load_state_dict(old.state_dict())
    assert (new.epoch, next(new)["x"].tolist()) == (1, [0, 1, 2, 3])
    short = Loader(ds, 2, steps=3)
    short.load_state_dict(old.state_dict())
    assert (short.epoch, values(short)) == (1, [[0, 1], [2, 3], [4, 5]])


@pytest.mark.parametrize("counted", [False, True])
def test_another_rule_counts_steps_from_the_state(counted: bool) -> None:
    ds = columns(10).filter(lambda row: True) if counted else columns(10)
    old = Loader(ds, 4)
    for _ in range(4):
        next(old)
    new = Loader(ds, 4, remainder="drop")
    new.load_state_dict(json.loads(json.dumps(old.state_dict())))
    peeked = new[new.step]["x"].tolist()
    assert next(new)["x"].tolist() == peeked == [4, 5, 6, 7]
    new.seek(4)
    assert next(new)["x"].tolist() == peeked
    with pytest.raises(PositionError, match="other batches"):
        new.seek(2)
    again = Loader(ds, 4, remainder="drop")
    again.load_state_dict(new.state_dict())
    assert again.state_dict() == new.state_dict()


def test_a_change_that_is_allowed_may_shorten_blocks() -> None:
    old = Loader(columns(64).filter(lambda row: True, name="f").repeat(), 5)
    for _ in range(9):
        next(old)
    new = Loader(columns(64).filter(lambda row: bool(row["x"] % 8 == 0), name="f").repeat(), 5)
    new.load_state_dict(old.state_dict(), allow={"stages.1"})
    assert next(new)["x"].tolist() == [0, 8, 16, 24, 32]


def test_what_collate_or_the_user_changes_changes_no_other_batch() -> None:
    ds = Dataset([{"x": [i], "t": "a"} for i in range(8)]).filter(lambda row: True)

    def greedy(rows: Any) -> Any:
        for row in rows:
            row.pop("t")
            row["x"].append(99)
        return [row["x"][0] for row in rows]

    loader = Loader(ds, 4, collate=greedy)
    assert loader[0] == loader[0] == [0, 1, 2, 3]
    ragged = Dataset([np.arange(i + 1) for i in range(4)]).filter(lambda row: True)
    boxes = ragged.map(lambda row: {"x": [row, "not a number"]})
    loader = Loader(boxes, 4)
    loader[0]["x"][1][0][:] = -1
    assert loader[0]["x"][1][0].tolist() == [0, 1]
    kept = np.zeros(4)
    shared = Loader(columns(4).map(lambda rows: {"x": kept}, batched=True), 4)
    shared[0]["x"][:] = 7
    assert shared[0]["x"].tolist() == [0, 0, 0, 0]


def test_hosts_by_hand_cannot_save_a_part_as_the_whole() -> None:
    import asyncio

    ds = columns(99).filter(lambda row: True).lanes(2).repeat()
    with pytest.raises(HostsError, match="only its own lanes"):
        asyncio.run(Loader(ds, 8, host=0, hosts=2).save(None))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("bad", [range(0, 4, 2), range(-3, 2), 5, (1, 2)])
def test_skip_wants_ranges(bad: Any) -> None:
    with pytest.raises(PositionError, match="give ranges"):
        Loader(columns(6), 2).skip(bad)


def test_skips_on_counted_datasets() -> None:
    ds = columns(50).shuffle().filter(lambda row: bool(row["x"] % 3)).repeat()
    whole = [digest(b) for b, _ in zip(Loader(ds, 4), range(12), strict=False)]
    loader = Loader(ds, 4)
    loader.skip(range(2, 9))
    assert [digest(next(loader)) for _ in range(4)] == [*whole[:2], *whole[9:11]]


def test_steps_out_of_range() -> None:
    loader = Loader(columns(6), 2)
    for bad in (-1, 1.5, True):
        with pytest.raises(PositionError, match="whole number"):
            loader.seek(bad)  # pyright: ignore[reportArgumentType]
        with pytest.raises(PositionError, match="whole number"):
            loader[bad]  # pyright: ignore[reportArgumentType]


def test_seek_is_arithmetic_far_out() -> None:
    loader = Loader(Dataset({"x": np.arange(1000)}).shuffle(), 7)
    loader.seek(10**12)
    assert loader.step == 10**12
    first = next(loader)
    assert digest(loader[10**12]) == digest(first)


def test_where_tells_files_and_segments() -> None:
    docs = Dataset([np.arange(3), np.arange(5), np.arange(2)]).pack(4)
    where = Loader(docs, 3).where(0)
    spans = [[(s.row.record, s.start, s.stop) for s in row.segments] for row in where]
    assert spans == [[(0, 0, 3), (1, 0, 1)], [(1, 1, 5)], [(2, 0, 2)]]
    assert "MemorySource" in repr(where)


# ---- batches


def test_a_batch_is_the_users_to_write_into() -> None:
    source = {"x": np.arange(8)}
    for ds in (Dataset(source), Dataset(source).filter(lambda row: True)):
        loader = Loader(ds, 4)
        batch = loader[0]
        batch["x"][:] = -1
        assert loader[0]["x"].tolist() == [0, 1, 2, 3]
        batched = Loader(ds.map(lambda rows: rows, batched=True), 4)[0]
        batched["x"][:] = -1
    assert source["x"].tolist() == list(range(8))


def test_collate_gets_this_hosts_rows() -> None:
    ds = Dataset([np.arange(n) for n in (1, 2, 3, 4)])
    ragged = Loader(ds, 4, host=1, hosts=2, collate=lambda rows: [len(r) for r in rows])
    assert next(ragged) == [3, 4]
    with pytest.raises(CollateError, match=r"record 0 of MemorySource.*\(1,\).*\(2,\)"):
        next(Loader(ds, 4))


def test_pad_needs_dicts() -> None:
    with pytest.raises(BatchError, match="rows must be dicts"):
        list(Loader(Dataset(range(5)), 2, remainder="pad"))
    with pytest.raises(BatchError, match="rows have one"):
        list(Loader(Dataset({"mask": np.arange(5)}), 2, remainder="pad"))


def test_an_error_leaves_the_loader_where_it_was() -> None:
    def refuse(row: Any) -> Any:
        if row["x"] == 5:
            raise ValueError("bad record")
        return row

    loader = Loader(columns(12).map(refuse), 4)
    next(loader)
    for _ in range(2):
        before = loader.state_dict()
        with pytest.raises(ValueError, match="bad record") as caught:
            next(loader)
        assert any("record 5 of MemorySource" in note for note in caught.value.__notes__)
        assert loader.state_dict() == before
    loader.skip(range(1, 2))
    assert next(loader)["x"].tolist() == [8, 9, 10, 11]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"batch_size": 0}, BatchError),
        ({"batch_size": 2.0}, BatchError),
        ({"batch_size": True}, BatchError),
        ({"batch_size": 2, "steps": 0}, BatchError),
        ({"batch_size": 2, "remainder": "wrap"}, BatchError),
        ({"batch_size": 9, "remainder": "drop"}, BatchError),
        ({"batch_size": 2, "workers": 3.5}, ChainError),
    ],
)
def test_options_are_checked_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Loader(columns(8), **options)
    with pytest.raises(ChainError, match="Dataset"):
        Loader(range(8), 2)  # pyright: ignore[reportArgumentType]


# ---- state


def test_state_is_small_plain_and_a_copy() -> None:
    ds = Dataset({"x": np.arange(10**6)}).shuffle().map(lambda row: row, name="tokenize")
    loader = Loader(ds, 128)
    sizes: list[int] = []
    for step in (1, 10**9):
        loader.seek(step)
        state = loader.state_dict()
        sizes.append(len(json.dumps(state)))
        assert json.loads(json.dumps(state)) == state
        assert list(state) == ["version", "rows", "step", "epoch", "batch", "dataset", "keys"]
    assert max(sizes) < 200
    state["dataset"]["seed"] = "9"
    assert loader.state_dict()["dataset"]["seed"] == "0"


@pytest.mark.parametrize(
    "bad",
    [
        None,
        3,
        {},
        {"version": 2},
        {"version": 1},
        "rows",
        {"version": 1, "rows": -1, "step": 0, "epoch": 0, "batch": 0},
    ],
)
def test_what_is_no_state_is_refused(bad: Any) -> None:
    with pytest.raises(StateError):
        Loader(columns(8), 2).load_state_dict(bad)


@pytest.mark.parametrize("key", ["rows", "step", "epoch", "batch", "dataset"])
def test_a_damaged_state_is_refused_and_nothing_moves(key: str) -> None:
    loader = Loader(columns(8), 2)
    next(loader)
    good = loader.state_dict()
    for wrong in ("x", None, -1, 1.5):
        with pytest.raises(StateError):
            loader.load_state_dict({**good, key: wrong})
    with pytest.raises(StateError):
        loader.load_state_dict({k: v for k, v in good.items() if k != key})
    assert loader.state_dict() == good


def test_lane_split_states_must_be_merged() -> None:
    ds = columns(99).filter(lambda row: bool(row["x"] % 2)).lanes(4).repeat()
    loaders = [Loader(ds, 8, host=h, hosts=2) for h in range(2)]
    states = [loader.state_dict() for loader in loaders if next(loader)]
    with pytest.raises(StateError, match=r"lanes \[0, 1\] of 4, this process needs \[2, 3\]"):
        loaders[1].load_state_dict(states[0])
    merged = merge(states)
    alone = Loader(ds, 8)
    alone.load_state_dict(merged)
    assert alone.state_dict() == merged
    next(loaders[0])
    with pytest.raises(StateError, match="not taken together"):
        merge([loaders[0].state_dict(), states[1]])
    with pytest.raises(StateError, match="got none"):
        merge([])


def test_lanes_cannot_be_allowed_away() -> None:
    ds = columns(99).filter(lambda row: True).repeat()
    state = Loader(ds.lanes(2), 8).state_dict()
    with pytest.raises(StateError, match=r"lanes: 2 -> 4.*Lanes cannot be changed"):
        Loader(ds.lanes(4), 8).load_state_dict(state, allow={"lanes"})


def test_the_mismatch_names_what_changed_and_can_be_allowed() -> None:
    old = columns(9).shuffle().map(lambda row: {"x": row["x"] + 1}, name="tokenize")
    state = Loader(old, 3).state_dict()
    other = Dataset({"x": np.arange(9)}, seed=1).shuffle()
    new = other.map(lambda row: {"x": row["x"] + 2}, name="tokenize")
    with pytest.raises(StateError) as caught:
        Loader(new, 3).load_state_dict(state)
    assert "stage 1: map tokenize, code or options changed" in str(caught.value)
    assert "seed: 0 -> 1" in str(caught.value)
    assert "load_state_dict(s, allow={'seed', 'stages.1'})" in str(caught.value)
    with pytest.raises(StateError):
        Loader(new, 3).load_state_dict(state, allow={"seed"})
    Loader(new, 3).load_state_dict(state, allow={"seed", "stages.1"})


def test_a_state_can_be_restored_twice() -> None:
    ds = columns(60).filter(lambda row: bool(row["x"] % 3)).lanes(2).repeat()
    loader = Loader(ds, 4)
    next(loader)
    state = loader.state_dict()
    kept = copy.deepcopy(state)
    expected = [digest(next(loader)) for _ in range(3)]
    for _ in range(2):
        loader.load_state_dict(state)
        assert [digest(next(loader)) for _ in range(3)] == expected
    assert state == kept


def test_where_spans_blocks() -> None:
    docs = Dataset([np.full(3, i) for i in range(12)]).pack(4, block=2)
    loader = Loader(docs, 6)
    for batch, step in zip(loader, range(9), strict=False):
        for tokens, row in zip(batch["tokens"], loader.where(step), strict=True):
            spans = [np.full(s.stop - s.start, s.row.record) for s in row.segments]
            told = np.concatenate(spans)
            assert tokens[: len(told)].tolist() == told.tolist()


def test_marks_thin_out_and_the_first_one_stays() -> None:
    ds = columns(40).filter(lambda row: True).repeat()
    loader = Loader(ds, 4)
    expected = [next(loader)["x"].tolist() for _ in range(700)]
    for step in (0, 699, 1, 300):
        loader.seek(step)
        assert next(loader)["x"].tolist() == expected[step]


def test_padding_of_strings_is_none() -> None:
    batch = list(Loader(Dataset([{"s": c} for c in "abc"]), 2, remainder="pad"))[-1]
    assert batch["s"].tolist() == ["c", None]


class _Ahead:
    """A feed that does nothing but look ahead."""

    prefetch = 3
    primary = True

    def rows(self, batch: int) -> Any:
        return np.arange(batch)

    def put(self, batch: Any, rows: Any, total: int) -> Any:
        return batch

    def gather(self, state: Any) -> list[Any]:
        return [state]


@pytest.mark.parametrize("counted", [False, True])
def test_batches_ahead_are_dropped_when_the_place_changes(counted: bool) -> None:
    ds = columns(64).filter(lambda row: True).repeat() if counted else columns(64).repeat()
    loader = Loader(ds, 4, feed=_Ahead())
    next(loader)
    state = loader.state_dict()
    next(loader)
    loader.seek(9)
    assert next(loader)["x"][0] == 36
    loader.skip(range(10, 12))
    assert next(loader)["x"][0] == 48
    loader.load_state_dict(state)
    assert next(loader)["x"][0] == 4
    assert loader.state_dict()["rows"] == 8


def test_a_feed_that_cannot_split_the_last_batch_is_refused_at_once() -> None:
    class Fussy(_Ahead):
        def rows(self, batch: int) -> Any:
            if batch % 4:
                raise BatchError(f"{batch} does not split")
            return np.arange(batch)

    with pytest.raises(BatchError, match="ends with a batch of 2"):
        Loader(columns(10), 4, feed=Fussy())
    Loader(columns(10), 4, feed=Fussy(), remainder="pad")
    Loader(columns(12), 4, feed=Fussy())
