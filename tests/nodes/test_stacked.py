"""Rows that are copied into columns piece by piece are those that are stacked at once."""

from __future__ import annotations

import weakref
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader
from pipeline.block import Block
from pipeline.debug.digest import digest
from pipeline.errors import ChainError, CollateError
from pipeline.transforms import collate_block, stacking
from pipeline.workers.work import Rows, evaluate, produce, stacked

Point = namedtuple("Point", "x y")

ROWS: dict[str, Any] = {
    "numbers": lambda x: x,
    "fields": lambda x: {"a": np.full((2, 3), x), "b": x, "c": [x, x + 1], "d": np.float32(x)},
    "same shapes": lambda x: {"a": np.full(3, x), "b": np.full(3, -x), "c": (x, np.full(3, 2 * x))},
    "namedtuple": lambda x: Point(np.full((1, 2), x), bool(x % 2)),
    "another order": lambda x: dict(
        [("a", np.full(2, x)), ("b", np.full(2, -x))][:: 1 - 2 * (x % 2)]
    ),
    "text": lambda x: {"a": x, "s": "é" * x},
    "a dtype that changes": lambda x: {"a": x if x < 9 else float(x)},
    "shapes that change": lambda x: {"a": np.zeros(2 + x // 8), "b": x},
    "fields that change": lambda x: {"a": x} if x < 9 else {"b": x},
    "kinds that change": lambda x: (x, x) if x < 9 else Point(x, x),
    "none": lambda x: None if x == 9 else x,
    "views": lambda x: {"a": np.arange(40).reshape(4, 10)[:, x % 3 :: 4][:, :2].T, "o": (x, {})},
    "no leaves": lambda x: {},
}


@pytest.mark.parametrize("what", list(ROWS))
@pytest.mark.parametrize("size", [1, 100, 1 << 18])
@pytest.mark.parametrize("large", [0, 1 << 20], ids=["row by row", "by pieces"])
@pytest.mark.parametrize("first", [3, 100])
def test_a_piece_at_a_time_gives_what_all_at_once_gives(
    what: str, size: int, large: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.nodes.mapped._Hint.first", first)
    monkeypatch.setattr(stacking, "PIECE", size)
    monkeypatch.setattr(stacking, "LARGE", large)
    ds = Dataset(range(16)).map(lambda x: x + 0, name="same").map(ROWS[what])
    work = Rows(np.arange(16))
    whole = stacked(evaluate(ds.top, work))
    for _ in range(2):  # the second time with what the first has shown of the rows
        found = produce(ds.top, work, stack=True)
        assert found.made == whole.made
        assert type(found.values) is type(whole.values)
        for start in range(0, 16, 4):  # and so does each batch of it
            assert _told(found.slice(start, start + 4)) == _told(whole.slice(start, start + 4))


def _told(block: Block) -> str:
    try:
        return digest(collate_block(block))
    except CollateError as error:
        return str(error)


def test_errors_name_the_row_and_the_stage_of_a_run() -> None:
    def bad(x: int, rng: Any) -> int:
        if x == 21:
            raise KeyError(x)
        return x

    ds = Dataset(range(40), seed=3).map(lambda x: x, name="f").random_map(bad)
    ds = ds.map_with_index(lambda i, x: i - x)
    loader = Loader(ds, 8)
    assert [next(loader).tolist() for _ in range(2)] == [[0] * 8] * 2
    with pytest.raises(KeyError) as caught:
        next(loader)
    notes = caught.value.__notes__
    assert notes == [
        "in stage 1: random_map 'bad', on record 21 of MemorySource, epoch 0, position 21"
    ]
    loader.seek(3)
    assert len(list(loader)) == 2


def test_a_batch_that_is_kept_is_never_written_to_again() -> None:
    ds = Dataset(range(64)).map(lambda x: {"x": np.full(5000, x)}).repeat()
    loader = Loader(ds, 4)
    kept = [next(loader) for _ in range(6)]
    views = [next(loader)["x"][1:, 7] for _ in range(6)]
    for _ in range(20):
        next(loader)
    assert [b["x"][:, 0].tolist() for b in kept] == [
        list(range(4 * k, 4 * k + 4)) for k in range(6)
    ]
    assert [v.tolist() for v in views] == [list(range(4 * k + 1, 4 * k + 4)) for k in range(6, 12)]


# ---- large rows, one by one


def _large(x: int) -> Any:
    return np.full((2, 1000), x)


def _failing(kind: type[BaseException], at: int) -> Any:
    def f(x: int) -> Any:
        if x == at:
            raise kind("bad")
        return _large(x)

    return f


@pytest.mark.parametrize("at", [2, 17, 31])
@pytest.mark.parametrize("error", [ValueError, StopIteration, KeyboardInterrupt])
def test_an_error_names_its_stage_and_its_row(error: type[BaseException], at: int) -> None:
    ds = Dataset(range(32)).map(lambda x: x, name="first").map(_failing(error, at), name="second")
    kind = RuntimeError if error is StopIteration else error
    with pytest.raises(kind) as caught:
        produce(ds.top, Rows(np.arange(32)), stack=True)
    assert caught.value.__notes__ == [
        f"in stage 1: map 'second', on record {at} of MemorySource, epoch 0, position {at}"
    ]


def test_a_large_row_is_dropped_before_the_next_one_is_made() -> None:
    made: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def f(x: int) -> Any:
        alive.append(sum(ref() is not None for ref in made))
        row = _large(x)
        made.append(weakref.ref(row))
        return row

    produce(Dataset(range(64)).map(f).top, Rows(np.arange(64)), stack=True)
    assert max(alive[stacking.FIRST + 1 :]) == 0


def test_each_large_row_has_its_own_randomness_in_any_grouping() -> None:
    def f(x: int, rng: np.random.Generator) -> Any:
        return {"x": rng.random(1000), "few": rng.integers(0, 9, 3, np.uint32), "y": x}

    ds = Dataset(range(64)).map(lambda x: x).random_map(f)
    alone = [ds[i] for i in range(64)]
    batch = next(Loader(ds, 64))
    assert (batch["x"] == [row["x"] for row in alone]).all()
    assert (batch["few"] == [row["few"] for row in alone]).all()


def test_a_generator_among_large_rows_is_refused() -> None:
    ds = Dataset(range(64)).map(lambda x: iter([x]) if x == 40 else x).map(lambda x: _large(7))
    with pytest.raises(ChainError, match="only once"):
        produce(ds.top, Rows(np.arange(64)), stack=True)


ODD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another type of number": lambda row: row | {"n": np.int64(row["n"])},
    "another order of keys": lambda row: dict(reversed(row.items())),
    "another layout": lambda row: row | {"x": np.asfortranarray(row["x"])},
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("at", [0, 1, 15, 16, 17, 40, 63])
def test_a_function_that_changes_rows_in_place_sees_each_once(odd: str, at: int) -> None:
    class Fresh:
        def __len__(self) -> int:
            return 64

        def read(self, indices: Any) -> list[Any]:
            return [{"x": np.full((64, 32), i), "n": int(i)} for i in indices]

    def changed(row: dict[str, Any]) -> Any:
        row["x"] += 1000
        row["n"] += 1000
        return ODD[odd](row) if row["n"] == 1000 + at else row

    for ds in (Dataset(Fresh()).map(changed), Dataset(Fresh()).map(changed).map(dict)):
        loader = Loader(ds, 64)
        for batch in (next(loader), next(loader)):
            assert (batch["n"] == np.arange(1000, 1064)).all()
            assert (batch["x"][:, 5, 5] == np.arange(1000, 1064)).all()


def _void(k: int) -> Any:
    return np.array((k, 2.5), [("a", "i8"), ("b", "f8")])[()]


# what rows hold, and what one of them holds instead
STRANGE: dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]] = {
    "units of dates": (lambda k: np.datetime64(k, "s"), lambda k: np.datetime64(1500, "ms")),
    "units of spans": (lambda k: np.timedelta64(k, "s"), lambda k: np.timedelta64(k, "us")),
    "raw records": (_void, lambda k: np.array((k, 2), [("a", "i8"), ("b", "i8")])[()]),
    "byte order": (lambda k: np.full(2, k, "<i4"), lambda k: np.full(2, k, ">i4")),
    "byte order, records": (_void, lambda k: np.array((k, 1), [("a", ">i8"), ("b", ">f8")])[()]),
    "precision": (lambda k: np.float32(k), lambda k: np.float64(k)),
    "truth": (lambda k: k, lambda k: True),
    "shape": (lambda k: np.zeros(2), lambda k: np.zeros(3)),
    "text": (lambda k: "a", lambda k: b"a"),
}


@pytest.mark.parametrize("wide", [0, 1024], ids=["small", "large"])
@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("odd", [{13}, set(range(32, 48)), {0}])
@pytest.mark.parametrize("what", list(STRANGE))
def test_a_batch_does_not_depend_on_what_was_read_before(
    what: str, odd: set[int], size: int, wide: int
) -> None:
    usual, other = STRANGE[what]

    def f(k: int) -> Any:
        return {"b": np.zeros(wide), "t": (other if k in odd else usual)(k)}

    ds = Dataset(range(96)).map(f, name="f")
    steps = range(96 // size)
    asked = [_answer(Loader(Dataset(range(96)).map(f, name="f"), size), step) for step in steps]
    loader = Loader(ds, size)  # what it has read decides how the next rows are read
    assert [_answer(loader, step) for step in steps] == asked
    assert [_answer(Loader(ds, size), step) for step in steps] == asked


def _answer(loader: Loader, step: int) -> str:
    loader.seek(step)
    try:
        return digest(next(loader))
    except CollateError as error:
        return str(error)


@pytest.mark.parametrize("wide", [1, 1024])
@pytest.mark.parametrize("buffers", [1, 2])
def test_an_array_that_a_function_fills_again_is_refused(wide: int, buffers: int) -> None:
    kept, mask = [np.empty(wide) for _ in range(buffers)], np.ones(3)

    def fills(k: int) -> Any:
        kept[k % buffers][:] = k
        return {"x": (kept[k % buffers], k), "mask": mask}

    all_ = Dataset(range(64))
    for ds in (all_.map(fills), all_.map(fills).filter(bool), all_.flat_map(lambda k: [fills(k)])):
        with pytest.raises(ChainError, match="changed what it had returned for an earlier"):
            Loader(ds.on_error("skip"), 8)[1]
    copies = Dataset(range(64)).map(lambda k: {"x": fills(k)["x"][0].copy(), "mask": mask})
    assert [batch["x"][:, 0].tolist() for batch in Loader(copies, 32)] == [
        list(range(32)),
        list(range(32, 64)),
    ]
