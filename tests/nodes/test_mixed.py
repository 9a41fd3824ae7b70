"""Mixes: shares, passes, schedules that are edited on resume, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Processes, Threads, concatenate, interleave, merge, mix
from pipeline.errors import ChainError, LanesError, MismatchError, StateError, StreamEndError
from pipeline.types import ENDLESS

Make = Callable[[str, int], Dataset]


def indexed(name: str, n: int) -> Dataset:
    first = ord(name[0]) * 100_000
    return Dataset({"x": first + np.arange(n)}, seed=3).shuffle()


def tens(name: str, n: int) -> Dataset:
    return indexed(name, n).filter(lambda row: row["x"] % 10 == 0, name="tens")


def kept(name: str, n: int) -> Dataset:
    return indexed(name, n).filter(lambda row: row["x"] % 10 != 3, name="kept")


def alone(name: str, ds: Dataset) -> list[int]:
    """A component's own order, which depends on its name."""
    return [int(row["x"]) for row in mix({name: ds}, {name: 1})]


def xs(loader: Any, steps: int) -> list[int]:
    return [x for _ in range(steps) for x in next(loader)["x"].tolist()]


def of(name: str, rows: list[int]) -> list[int]:
    return [x for x in rows if x // 100_000 == ord(name[0])]


def test_a_component_filtered_to_a_tenth_still_has_its_share() -> None:
    ds = mix({"a": tens("a", 3000), "b": indexed("b", 3000)}, {"a": 1, "b": 1}, "never")
    rows = xs(Loader(ds, 16), 50)
    assert len(of("a", rows)) == len(of("b", rows)) == 400
    assert of("a", rows)[:300] == alone("a", tens("a", 3000))


@pytest.mark.parametrize("make", [indexed, kept])
@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("above", [False, True])
def test_a_mixture_edited_three_times_loses_and_repeats_nothing(
    make: Make, lanes: int, above: bool
) -> None:
    def dataset(*entries: Any) -> Dataset:
        names = {name for _, weights in entries for name in weights}
        ds = mix({n: make(n, 400) for n in sorted(names)}, list(entries), "never")
        if above:
            ds = ds.filter(lambda row: row["x"] % 7 > 0, block=8, name="sevens")
        return ds.lanes(lanes) if ds.counted else ds

    entries: list[Any] = [(0, {"a": 3, "b": 1})]
    loader = Loader(dataset(*entries), 8)
    rows = xs(loader, 5)
    edits = ({"a": 1, "b": 1, "c": 2}, {"c": 1}, {"b": 0.2, "c": 0.3, "d": 9, "a": 1})
    for weights in edits:
        state = json.loads(json.dumps(loader.state_dict()))
        assert loader.frontier >= 40
        entries.append((loader.frontier, weights))
        loader = Loader(dataset(*entries), 8)
        loader.load_state_dict(state)
        rows += xs(loader, 5)
    whole_dataset = dataset(*entries)
    assert xs(Loader(whole_dataset, 8), 20) == rows
    for name in "abcd":
        own = [x for x in alone(name, make(name, 400)) if x % 7 or not above]
        seen = of(name, rows)
        assert seen
        if not whole_dataset.counted or lanes == 1:  # else each lane has its own part of them
            assert seen == own[: len(seen)]
        assert len(set(seen)) == len(seen)


def test_the_past_of_a_schedule_is_not_edited() -> None:
    parts = {name: indexed(name, 100) for name in "abc"}

    def dataset(entries: Any, **changed: Dataset) -> Dataset:
        return mix({**parts, **changed}, entries, "never")

    old = [(0, {"a": 1, "b": 1}), (50, {"a": 1, "b": 1, "c": 1}), (900, {"a": 1})]
    loader = Loader(dataset(old), 8)
    xs(loader, 5)
    state = loader.state_dict()
    assert loader.frontier == 40
    later = [*old, (2000, {"b": 1})]
    for entries in ([old[0], (40, {"c": 1})], old[:2], later, [old[0], (900, {"c": 1})]):
        Loader(dataset(entries), 8).load_state_dict(state)
    without = mix({"a": parts["a"], "b": parts["b"]}, old[:1], "never")
    Loader(without, 8).load_state_dict(state)
    Loader(dataset(old, c=indexed("z", 7)), 8).load_state_dict(state)
    with pytest.raises(MismatchError, match=r"schedule\.0.*drawn up to row 40: only"):
        Loader(dataset([(0, {"a": 2, "b": 1, "c": 0})]), 8).load_state_dict(state)
    with pytest.raises(MismatchError, match=r"schedule\.1"):
        Loader(dataset([old[0], (39, {"c": 1})]), 8).load_state_dict(state)
    with pytest.raises(MismatchError, match=r"a\.source"):
        Loader(dataset(old, a=indexed("a", 99)), 8).load_state_dict(state)
    # the order of components that share rows decides ties
    swapped = mix(dict(reversed(parts.items())), old, "never")
    with pytest.raises(MismatchError, match=r"schedule\.0"):
        Loader(swapped, 8).load_state_dict(state)
    Loader(dataset([(0, {"a": 2, "b": 1, "c": 1})]), 8).load_state_dict(state, allow={"schedule.0"})


@pytest.mark.filterwarnings("ignore:interleave. datasets '0' and '1' are in the same")
@pytest.mark.parametrize("join", [concatenate, interleave])
def test_the_drawn_past_of_a_joined_mix_is_not_edited(join: Callable[..., Dataset]) -> None:
    def joined(weight: int, since: int = 0) -> Dataset:
        def part(schedule: Any) -> Dataset:
            parts = {name: indexed(name, 100).repeat() for name in "ab"}
            return mix(parts, schedule, stop="never")[:50]

        even = [(0, {"a": 1, "b": 1})]
        late = [(0, {"a": 1, "b": weight})] if not since else [*even, (since, {"b": 1})]
        return join([part(even), part(late)])

    loader = Loader(joined(1), 4)
    seen = 15 if join is concatenate else 5  # of either mix, 10 rows of the second
    rows = xs(loader, seen)
    state = loader.state_dict()
    drawn = {"0.schedule": 50 if join is concatenate else 10, "1.schedule": 10}
    assert dict(state["frontiers"]) == drawn
    with pytest.raises(MismatchError, match=r"1\.schedule"):
        Loader(joined(3), 4).load_state_dict(state)
    edited = Loader(joined(1, since=10), 4)
    edited.load_state_dict(state)
    assert rows + xs(edited, 4) == xs(Loader(joined(1, since=10), 4), seen + 4)


def test_a_nested_schedule_has_a_frontier_of_its_own() -> None:
    def dataset(entries: Any) -> Dataset:
        inner = mix({"a": indexed("a", 50), "b": indexed("b", 50)}, entries, "never")
        return mix({"in": inner, "c": indexed("c", 50)}, {"in": 1, "c": 3}, "never")

    loader = Loader(dataset([(0, {"a": 1, "b": 1})]), 8)
    rows = xs(loader, 4)
    state = loader.state_dict()
    assert dict(state["frontiers"]) == {"schedule": 32, "in.schedule": 8}
    edited = Loader(dataset([(0, {"a": 1, "b": 1}), (8, {"b": 1})]), 8)
    edited.load_state_dict(state)
    rows += xs(edited, 4)
    assert rows == xs(Loader(dataset([(0, {"a": 1, "b": 1}), (8, {"b": 1})]), 8), 8)
    with pytest.raises(MismatchError, match=r"in\.schedule\.1"):
        Loader(dataset([(0, {"a": 1, "b": 1}), (7, {"b": 1})]), 8).load_state_dict(state)


@pytest.mark.parametrize("make", [indexed, kept])
def test_after_a_pass_of_a_finite_mix_its_schedule_is_settled(make: Make) -> None:
    ds = mix({"a": make("a", 20), "b": make("b", 40)}, {"a": 1, "b": 1}, "first")
    loader = Loader(ds, 4)
    next(loader)
    assert loader.frontier == 4
    list(loader)
    assert (loader.epoch, loader.frontier) == (1, ENDLESS)


@pytest.mark.parametrize("make", [indexed, kept])
def test_stop_says_when_a_pass_ends(make: Make) -> None:
    parts = {"a": make("a", 20), "b": make("b", 60)}
    sizes = {name: len(list(part)) for name, part in parts.items()}
    first = [int(r["x"]) for r in mix(parts, {"a": 1, "b": 1}, "first")]
    assert len(of("a", first)) == sizes["a"]
    assert len(first) - 2 * sizes["a"] in (0, 1)
    every = [int(r["x"]) for r in mix(parts, {"a": 1, "b": 1}, "all")]
    assert sorted(of("b", every)) == sorted(int(r["x"]) for r in parts["b"])
    assert of("b", every[-1:])
    assert abs(len(of("a", every)) - len(of("b", every))) <= 1
    assert set(of("a", every)) == {int(r["x"]) for r in parts["a"]}


@pytest.mark.parametrize("make", [indexed, kept])
def test_components_go_on_from_pass_to_pass(make: Make) -> None:
    parts = {"a": make("a", 20), "b": make("b", 60)}
    twice = mix(parts, {"a": 1, "b": 1}, "first").repeat(2)
    rows = [int(r["x"]) for r in twice]
    seen = of("b", rows)
    assert seen == alone("b", parts["b"])[: len(seen)]
    loader = Loader(mix(parts, {"a": 1, "b": 1}, "first"), 4)
    batches = [x for _ in range(2) for batch in loader for x in batch["x"].tolist()]
    assert batches == rows


def test_padding_of_a_rare_packed_component_is_as_of_that_component_alone() -> None:
    def packed(i: int) -> Dataset:
        rng = np.random.default_rng(i)
        docs = [np.full(size, i + 1) for size in rng.integers(1, 30, 300)]
        return Dataset(docs, seed=i).shuffle().pack(32, block=64)

    parts = {f"c{i}": packed(i) for i in range(200)}
    weights = dict.fromkeys(parts, 1.0)
    loader = Loader(mix(parts, weights, "never"), 200)
    rows = [row for _ in range(20) for row in next(loader)["tokens"]]
    for i in (0, 77, 199):
        mine = np.array([row for row in rows if row[0] == i + 1])
        own = mix({f"c{i}": packed(i)}, {f"c{i}": 1}).head(20)
        assert len(mine) == 20
        assert (mine == np.array([row["tokens"] for row in own])).all()


def test_stages_above_see_rows_wherever_they_are_evaluated() -> None:
    def jitter(row: Any, rng: np.random.Generator) -> Any:
        return {"x": row["x"], "j": rng.integers(1 << 30)}

    parts = {"a": kept("a", 60), "b": indexed("b", 30)}
    ds = mix(parts, {"a": 2, "b": 1}, "never", seed=5).random_map(jitter)
    ds = mix({"m": ds, "c": kept("c", 50).map(lambda r: {**r, "j": r["x"]})}, {"m": 3, "c": 1})
    ds = ds.lanes(2).repeat()
    expected = [next(it) for it in [iter(Loader(ds, 8))] for _ in range(12)]
    for workers in (Threads(2), Processes(2, parent=False)):
        with Loader(ds, 8, workers=workers) as loader:
            for want in expected:
                got = next(loader)
                assert all((got[k] == want[k]).all() for k in want)
    hosts = [Loader(ds, 8, host=h, hosts=2) for h in range(2)]
    for want in expected[:5]:
        got = [next(loader) for loader in hosts]
        assert (np.concatenate([g["j"] for g in got]) == want["j"]).all()
    one = Loader(ds, 8)
    one.load_state_dict(merge([loader.state_dict() for loader in hosts]))
    assert (next(one)["j"] == expected[5]["j"]).all()


def ints(row: Any) -> bool:
    return type(row["x"]) is int and row["x"] % 3 > 0


def test_stages_that_count_above_see_the_very_rows() -> None:
    parts = {name: Dataset([{"x": i} for i in range(40)]) for name in "ab"}
    parts["a"] = parts["a"].filter(ints)
    ds = mix(parts, {"a": 1, "b": 1}).filter(ints, name="above")
    plain = [batch["x"].tolist() for batch in Loader(ds, 4)]
    assert sum(map(len, plain)) > 20
    with Loader(ds, 4, workers=Processes(1, parent=False)) as loader:
        assert [batch["x"].tolist() for batch in loader] == plain
        named = {s.name: s.rows for s in loader.stats().stages}
    assert named["stage 0: filter 'above'"] >= sum(map(len, plain))


def test_rows_that_fail_are_left_out_below_and_above() -> None:
    def picky(row: Any) -> Any:
        if row["x"] % 5 == 0:
            raise ValueError("five")
        return row

    picked = kept("a", 60).map(picky).on_error("skip")
    below = mix({"a": picked, "b": indexed("b", 60)}, {"a": 1, "b": 1})
    above = mix({"a": kept("a", 60), "b": indexed("b", 60)}, {"a": 1, "b": 1})
    above = above.map(picky).on_error("skip")
    for ds, names in ((below, "a"), (above, "ab")):
        rows = xs(Loader(ds.repeat(), 8), 8)
        for name in names:
            assert not [x for x in of(name, rows) if x % 5 == 0]
        assert len(of("a", rows)) == len(of("b", rows))


def test_what_a_mix_refuses() -> None:
    a, b = kept("a", 40), indexed("b", 40)
    with pytest.raises(ChainError, match=r"Put \.lanes\(n\) after the outermost mix"):
        mix({"a": a.lanes(2), "b": b}, {"a": 1, "b": 1})
    with pytest.raises(ChainError, match='choose "first", "all" or "never"'):
        mix({"a": a}, {"a": 1}, "last")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ChainError, match="give other names, without"):
        mix({"a.b": a}, {"a.b": 1})
    with pytest.raises(ChainError, match="'b' is empty"):
        mix({"a": b, "b": b[:0]}, {"a": 1, "b": 1})
    counted = mix({"a": a, "b": b}, {"a": 1, "b": 1})
    with pytest.raises(ChainError, match=r"mix \(in it filter 'kept' of dataset 'a'\)"):
        counted.shuffle()
    with pytest.raises(LanesError, match="mix makes hosts=2 need 2 lanes"):
        Loader(counted, 4, host=0, hosts=2)
    with pytest.raises(ChainError, match="no frontier"):
        _ = Loader(a, 4).frontier
    nothing = b.filter(lambda row: False, name="none")
    loader = Loader(mix({"a": nothing, "b": b}, {"a": 1, "b": 1}, "never"), 4)
    with pytest.raises(StreamEndError, match="no row of dataset 'a'"):
        next(loader)
    loader = Loader(counted, 4)
    state = {**loader.state_dict(), "lanes": [[0, [0, 0]]]}
    with pytest.raises(StateError, match="do not fit"):
        loader.load_state_dict(state)


def test_a_dataset_that_is_not_dealt_yet_may_be_added_empty_handed() -> None:
    ds = mix({"a": indexed("a", 9), "b": indexed("b", 9)}, {"a": 1, "b": 0}, "never")
    assert not of("b", xs(Loader(ds, 8), 4))


@pytest.mark.parametrize("above", [False, True])
def test_an_edit_that_makes_a_mix_counted_is_told_by_its_cause(above: bool) -> None:
    def keep(row: Any) -> bool:
        return True

    a, b = Dataset(range(20)), Dataset(range(20)).filter(keep)
    plain = mix({"a": a}, {"a": 1}, "never")
    more = mix({"a": a, "b": b}, [(0, {"a": 1, "b": 0}), (400, {"a": 1, "b": 1})], "never")
    if above:
        plain, more = plain.filter(keep), more.filter(keep)
    loader = Loader(plain, 4)
    next(loader)
    with pytest.raises(StateError, match=r"filter, flat_map or pack.* by a scan"):
        Loader(more, 4).load_state_dict(loader.state_dict())
