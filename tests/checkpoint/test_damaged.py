"""Damaged states, and those of somebody else: a StateError in short words, and nothing moves."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, merge, mix
from pipeline.checkpoint import orbax
from pipeline.checkpoint.files import read_state
from pipeline.errors import StateError


def loaders() -> list[Loader]:
    part = Dataset(range(40), seed=1).shuffle()
    counted = part.filter(lambda x: x % 3 > 0, name="f")
    mixed = mix({"a": counted, "b": part}, {"a": 1, "b": 2}, "never").lanes(2)
    found = [Loader(part, 4), Loader(counted.repeat(), 4), Loader(mixed, 4)]
    for loader in found:
        next(loader)
        loader.skip(range(4, 6), records=3 if len(loader._dataset.components) == 1 else ("a", 3))
        next(loader)
    return found


def deep(depth: int) -> Any:
    nested: Any = []
    for _ in range(depth):
        nested = [nested]
    return nested


DEEP = deep(100_000)


def odd(rng: random.Random) -> Any:
    return rng.choice(
        [None, -1, 0, 1, 2.5, True, 10**30, -(10**30), float("inf"), float("nan"), "x", "", [], {},
         [[]], [1], {"a": 1}, [[1, 2, 3]], "9" * 5000, DEEP, 1 << 62, [[0, 1 << 63]]]
    )  # fmt: skip


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    return [path, *(p for k, v in inside for p in places(v, (*path, k)))]


def mutated(state: Any, rng: random.Random) -> Any:
    state = copy.deepcopy(state)
    *path, last = rng.choice(places(state)[1:])
    at = state
    for key in path:
        at = at[key]
    if rng.random() < 0.7:
        at[last] = odd(rng)
    elif isinstance(at, dict):
        del at[last]
    else:
        at.insert(rng.randrange(len(at) + 1), odd(rng))
    return state


@pytest.mark.parametrize("seed", range(3))
def test_a_mutated_state_is_refused_or_restores(seed: int) -> None:
    rng = random.Random(seed)
    for loader in loaders():
        good = json.loads(json.dumps(loader.state_dict()))
        for _ in range(150):
            bad = mutated(good, rng)
            try:
                loader.load_state_dict(bad)
            except StateError as e:
                told = str(e)
                assert len(told) < 1500
                assert loader.state_dict() == good
            else:
                c = loader._position.cursor
                assert all(0 <= n <= 1 << 62 for n in (c.rows, c.step, c.epoch, c.batch))
                loader.load_state_dict(good)


@pytest.mark.parametrize("whole", [None, 3, "rows", [], [1], {}, {"version": [1]}, {"version": 99}])
def test_what_is_no_state_is_refused(whole: Any) -> None:
    with pytest.raises(StateError):
        loaders()[0].load_state_dict(whole)
    with pytest.raises(StateError):
        merge([whole])


def test_numbers_are_whole_and_bounded() -> None:
    loader = Loader(Dataset(range(8)), 2)
    state = loader.state_dict()
    for key in ("rows", "step", "epoch", "batch"):
        for wrong in (10**30, -1, 1.0, True, "1", None, 1e300, float("nan")):
            with pytest.raises(StateError, match="damaged"):
                loader.load_state_dict({**state, key: wrong})
    loader.load_state_dict({**state, "step": np.int64(0)})


def arrays(tree: Any, made: Any) -> Any:
    if isinstance(tree, dict):
        return {k: arrays(v, made) for k, v in tree.items()}
    if isinstance(tree, list):
        ints = tree and all(type(v) is int for v in tree)
        return made(tree) if ints else tuple(arrays(v, made) for v in tree)
    return made(tree) if isinstance(tree, int) else tree


@pytest.mark.parametrize("kind", ["numpy", "jax", "torch"])
def test_numbers_that_came_back_as_arrays_are_numbers(kind: str) -> None:
    name = {"numpy": "numpy", "jax": "jax.numpy", "torch": "torch"}[kind]
    made = pytest.importorskip(name)
    make = made.tensor if kind == "torch" else made.asarray
    for loader, fresh in zip(loaders(), loaders(), strict=True):
        state = loader.state_dict()
        state.pop("frontiers", None)  # 2**62 is no number of jax's
        _ = next(loader), next(loader)
        for given in (arrays(state, make), merge([arrays(state, make)])):
            fresh.load_state_dict(given)
            assert (fresh.step, fresh.epoch) == (state["step"], state["epoch"])
            fresh.seek(loader.step)
            assert fresh.state_dict() == loader.state_dict()


def test_what_others_made_of_a_state_is_told_as_such() -> None:
    loader = loaders()[2]
    state = loader.state_dict()
    floats = {k: float(v) if isinstance(v, int) else v for k, v in state.items()}
    numbered = {k: dict(enumerate(v)) if isinstance(v, list) else v for k, v in state.items()}
    for given, told in (
        (floats, r"version 4.0.*changed its numbers.*json.dumps"),
        (numbered, r"lists of the state have become mappings: \['anchor'.*json.dumps"),
        ({**state, "version": 6}, r"version 6, this Lockstep reads up to 5: use the Lockstep that"),
        ({**state, "dataset": {}}, r"lost its fields \['dataset'\]"),
    ):
        with pytest.raises(StateError, match=told):
            loader.load_state_dict(given)


@pytest.mark.parametrize("far", [100, 1 << 40, 1 << 61])
def test_a_place_outside_of_its_epoch_is_refused(far: int) -> None:
    indexed, streamed = Dataset(range(40)).shuffle(), Dataset(range(40)).filter(lambda x: x > 3)
    for ds, where in ((indexed, "rows"), (indexed, "epoch"), (streamed, "block")):
        loader = Loader(ds, 4)
        next(loader)
        state = json.loads(json.dumps(loader.state_dict()))
        if where == "block":
            state["lanes"][0][1][0] = far
        else:
            state[where] = far
        with pytest.raises(StateError, match=f"{far}.*not of its epoch|not of its epoch {far}"):
            loader.load_state_dict(state)
        assert next(loader) is not None  # it stands where it stood


def test_a_state_of_a_longer_dataset_that_is_allowed_begins_the_next_pass() -> None:
    long, short = Loader(Dataset(range(40)), 4), Loader(Dataset(range(8)), 4)
    long.seek(7)
    short.load_state_dict(long.state_dict(), allow={"source"})
    assert (short.epoch, next(short).tolist()) == (1, [0, 1, 2, 3])


@pytest.mark.parametrize("text", [None, "", "{", "[" * 100_000, "\x00"])
def test_a_checkpoint_without_a_state_is_told(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "lockstep.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(
        StateError, match=r"lockstep\.json holds no loader state.*an older"
    ) as caught:
        read_state(path)
    assert len(str(caught.value)) < 600


def test_a_file_of_a_checkpoint_that_is_no_state(tmp_path: Path) -> None:
    import asyncio

    loader = Loader(Dataset(range(8)), 2)
    for text in ["", "{", "[" * 100_000, "3", '{"version": 1' + "0" * 5000 + "}", "\x00"]:
        (tmp_path / orbax.FILE).write_text(text)
        with pytest.raises(StateError) as caught:
            asyncio.run(loader.load(tmp_path))
        assert len(str(caught.value)) < 600
    (tmp_path / orbax.FILE).write_bytes(b"\xff\xfe{")
    with pytest.raises(StateError):
        asyncio.run(loader.load(tmp_path))
    assert loader.step == 0


# ---- merging


def host_states(hosts: int) -> list[Any]:
    ds = Dataset(range(99)).filter(lambda x: x % 2 > 0).lanes(4).repeat()
    made = [Loader(ds, 8, host=h, hosts=hosts) for h in range(hosts)]
    return [loader.state_dict() for loader in made if next(loader) is not None]


def test_merge_wants_every_host() -> None:
    for hosts in (1, 2, 4):
        states = host_states(hosts)
        assert [lane for lane, _ in merge(states)["lanes"]] == [0, 1, 2, 3]
        assert merge(states[::-1]) == merge(states)
        if hosts > 1:
            with pytest.raises(StateError, match=r"of 4 lanes, .* are missing"):
                merge(states[1:])
            with pytest.raises(StateError, match=r"of 4 lanes, .* are missing"):
                merge([states[0]] * hosts)
        assert merge([*states, states[0]]) == merge(states)  # ranks that share rows


def test_equal_states_merge_to_one() -> None:
    # row-split hosts', and those of a feed that gathered all lanes
    indexed = Loader(Dataset(range(99)).shuffle(), 8, host=1, hosts=2)
    next(indexed)
    for whole in (indexed.state_dict(), merge(host_states(4))):
        for hosts in (1, 2, 5):
            assert merge([json.loads(json.dumps(whole)) for _ in range(hosts)]) == whole
    assert merge([merge(host_states(2)), *host_states(4)]) == merge(host_states(1))


def test_merge_refuses_a_lane_at_two_places() -> None:
    states = host_states(2)
    strayed = json.loads(json.dumps(states[0]))
    strayed["lanes"][1][1][1] += 1
    for given in ([*states, strayed], [merge(states), merge([strayed, states[1]])]):
        with pytest.raises(StateError, match=r"of 4 lanes, \[1\] stand at two places"):
            merge(given)
