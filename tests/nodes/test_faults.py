"""I/O errors are tried again, then raised and never skipped; any other is raised at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, concatenate, mix
from pipeline.nodes import faults


class Shaky:
    """Ten records; the first `failures` reads fail."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.left, self.error, self.reads = failures, error, 0

    def __len__(self) -> int:
        return 10

    def read(self, indices: Any) -> list[int]:
        self.reads += 1
        if self.left:
            self.left -= 1
            raise self.error
        return np.asarray(indices).tolist()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "PAUSES", (0.0, 0.0))


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_passing_fault_is_never_seen(on_error: Any) -> None:
    source = Shaky(2, TimeoutError("no answer"))
    assert next(Loader(Dataset(source).on_error(on_error), 10)).tolist() == list(range(10))
    assert source.reads == 3


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_lasting_fault_is_raised_never_skipped_and_nothing_is_lost(on_error: Any) -> None:
    source = Shaky(3, TimeoutError("no answer"))
    loader = Loader(Dataset(source).on_error(on_error), 10)
    with pytest.raises(TimeoutError, match="no answer") as caught:
        next(loader)
    assert any("source Shaky, records [0, 1, 2]" in note for note in caught.value.__notes__)
    assert loader.step == 0
    assert next(loader).tolist() == list(range(10))


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), ValueError("bad")])
def test_what_will_not_pass_is_raised_at_once(error: Exception) -> None:
    source = Shaky(1, error)
    with pytest.raises(type(error)):
        next(Loader(Dataset(source), 10))
    assert source.reads == 1


def test_functions_of_the_user_are_tried_again_too() -> None:
    tries: list[int] = []

    def fetch(row: int) -> int:
        tries.append(row)
        if len(tries) == 2:
            raise ConnectionResetError("by peer")
        return row

    assert next(Loader(Dataset(range(3)).map(fetch), 3)).tolist() == [0, 1, 2]
    assert tries == [0, 1, 0, 1, 2]


class Shaking:
    """Adds one to a row's "n" and to its array "a" in place, then fails now and then.

    Args:
        error: what a failing call raises.
        every: a call out of so many fails, five times; 0 for none.
        lasting: whether the same rows fail each time.
    """

    def __init__(self, error: type[Exception], every: int, lasting: bool = False) -> None:
        self._error, self._every, self._lasting = error, every, lasting
        self._calls = 0

    def fails(self, row: dict[str, Any]) -> bool:
        self._calls += 1
        if not self._every or (not self._lasting and self._calls > 5 * self._every):
            return False
        return ((row["i"] + 1) if self._lasting else self._calls) % self._every == 0

    def change(self, row: dict[str, Any]) -> dict[str, Any]:
        row["n"] += 1
        row["a"] += 1
        if self.fails(row):
            raise self._error("now and then")
        return row

    def keep(self, row: dict[str, Any]) -> bool:
        return bool(self.change(row))

    def copies(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [self.change(row)]


def _records(n: int) -> Dataset:
    return Dataset([{"i": i, "n": 0, "a": np.zeros(3)} for i in range(n)])


def _randomly(shaking: Shaking) -> Any:
    return lambda row, rng: shaking.change(row) | {"draw": float(rng.random())}


def _indexed(shaking: Shaking) -> Any:
    return lambda index, row: shaking.change(row) | {"index": index}


# a dataset whose rows a function changes in place, and how often it is changed
CHANGED_IN_PLACE: dict[str, tuple[Callable[[Shaking], Dataset], int]] = {
    "map": (lambda s: _records(60).map(s.change), 1),
    "maps": (lambda s: _records(60).map(s.change).map(s.change, name="again"), 2),
    "shuffle": (lambda s: _records(60).map(s.change).shuffle(), 1),
    "random_map": (lambda s: _records(60).random_map(_randomly(s)), 1),
    "map_with_index": (lambda s: _records(60).map_with_index(_indexed(s)), 1),
    "batched": (
        lambda s: _records(60).map(s.change).map(lambda rows: rows, batched=True, name="b"),
        1,
    ),
    "filter": (lambda s: _records(60).filter(s.keep, block=7), 1),
    "map, filter, map": (
        lambda s: (
            _records(60).map(s.change).filter(lambda row: True, block=7).map(s.change, name="b")
        ),
        2,
    ),
    "flat_map": (lambda s: _records(60).flat_map(s.copies, block=7).map(s.change), 2),
    "bucket": (
        lambda s: _records(60).bucket(lambda row: s.change(row)["i"], [20, 40], block=30),
        1,
    ),
    "concatenate": (
        lambda s: concatenate([_records(30).map(s.change), _records(30).map(s.change)]),
        1,
    ),
    "mix": (
        lambda s: mix(
            {"a": _records(30).map(s.change), "b": _records(30).map(s.change)}, {"a": 1, "b": 1}
        ).map(s.change),
        2,
    ),
    "mix of lanes, map": (
        lambda s: mix(
            {"a": _records(30).filter(lambda row: True, block=7), "b": _records(30)},
            {"a": 1, "b": 1},
        ).map(s.change),
        1,
    ),
    "mix of lanes, filter, map": (
        lambda s: (
            mix(
                {"a": _records(30).filter(lambda row: True, block=7), "b": _records(30)},
                {"a": 1, "b": 1},
            )
            .filter(s.keep, block=9)
            .map(s.change)
        ),
        2,
    ),
}


def _passed(dataset: Dataset, batch: int, tolerant: type[Exception] | None = None) -> list[Any]:
    # the rows of one pass; an error of the tolerated kind is met by asking again
    loader, rows = Loader(dataset, batch, collate=list), list[Any]()
    while True:
        try:
            for some in loader:
                rows += some
            return rows
        except Exception as error:
            if tolerant is None or type(error) is not tolerant:
                raise


def _same(found: list[Any], expected: list[Any]) -> None:
    assert [row["i"] for row in found] == [row["i"] for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        assert row.keys() == wanted.keys()
        assert all(np.array_equal(row[key], wanted[key]) for key in row)


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("name", CHANGED_IN_PLACE)
def test_rows_are_changed_in_place_once_though_functions_fail(name: str, batch: int) -> None:
    make, times = CHANGED_IN_PLACE[name]
    expected = _passed(make(Shaking(OSError, 0)), batch)
    assert {row["n"] for row in expected} == {times}
    # errors that pass are never seen; others are, and the user asks again
    _same(_passed(make(Shaking(OSError, 41)), batch), expected)
    _same(_passed(make(Shaking(ValueError, 83)), batch, ValueError), expected)


@pytest.mark.parametrize("name", CHANGED_IN_PLACE)
def test_skipped_rows_leave_their_neighbours_as_they_are(name: str) -> None:
    make, _ = CHANGED_IN_PLACE[name]
    bad = {i for i in range(60) if (i + 1) % 11 == 0}
    expected = {(row["i"], row["n"]) for row in _passed(make(Shaking(OSError, 0)), 16)}
    dataset = make(Shaking(ValueError, 11, lasting=True)).on_error("skip")
    found = {(row["i"], row["n"]) for row in _passed(dataset, 16)}
    assert {i for i, _ in found} == {i for i, _ in expected} - bad
    assert found <= expected


def test_large_rows_are_changed_in_place_once_though_a_function_fails() -> None:
    calls = itertools.count(1)

    def change(row: dict[str, Any]) -> dict[str, Any]:
        row["a"] += 1
        if next(calls) % 30 == 0:
            raise TimeoutError("no answer")
        return row

    rows = Dataset([{"a": np.zeros(4096)} for _ in range(100)]).map(change)
    for batch in Loader(rows, 50):
        assert (batch["a"] == 1).all()


class Record:
    """A row that no function of ours knows how to copy."""

    def __init__(self, i: int) -> None:
        self.i, self.n = i, 0


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_rows_of_a_mix_that_cannot_be_copied_are_changed_once(error: type[Exception]) -> None:
    shaking = Shaking(error, 37)

    def keep(row: Record) -> bool:
        row.n += 1
        if shaking.fails({"i": row.i}):
            raise error("now and then")
        return True

    part = Dataset(range(30)).map(Record)
    rows = mix({"a": part.filter(lambda row: True, block=7), "b": part}, {"a": 1, "b": 1})
    found = _passed(rows.filter(keep, block=9).map(lambda row: row.n), 8, ValueError)
    assert set(found) == {1}


def test_each_streamed_stage_is_tried_again_as_often_as_an_indexed_one() -> None:
    failed: set[int] = set()

    def once(stage: int) -> Callable[[int], int]:
        def f(row: int) -> int:
            if stage not in failed:
                failed.add(stage)
                raise TimeoutError("no answer")
            return row

        return f

    rows = Dataset(range(8)).filter(lambda row: True)
    for stage in range(4):
        rows = rows.map(once(stage), name=f"stage {stage}")
    assert next(Loader(rows, 8)).tolist() == list(range(8))
