"""Batches read together: the same as one by one, and their arithmetic is done together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Dataset, Loader, interleave, mix
from pipeline.batches.substitutes import Substitutes
from pipeline.errors import PositionError
from pipeline.sampling.cursor import Cursor
from pipeline.sampling.cuts import Cuts, joined
from pipeline.sampling.passes import SizedPasses
from pipeline.types import ENDLESS
from pipeline.workers.serial import SerialExecutor
from tests.examples import examples


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    # an executor that always asks for 64 batches a work; the sizes of works in rows
    works: list[int] = []
    submit = SerialExecutor.submit

    def noted(self: Any, work: Any, *, urgent: bool = False) -> Any:
        works.append(len(work.rows))
        return submit(self, work, urgent=urgent)

    monkeypatch.setattr(SerialExecutor, "submit", noted)
    monkeypatch.setattr(SerialExecutor, "group", lambda _self, _rows: 64)
    monkeypatch.setattr(SerialExecutor, "has_capacity", lambda self: not self.waiting)
    return works


@examples(100)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.lists(st.integers(1, 20), min_size=2, max_size=2, unique=True).map(sorted),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=3),
    st.sampled_from([7, 20, 40, ENDLESS]),
    st.booleans(),
    st.sampled_from([None, 3, 11]),
    st.integers(1, 70),
)
def test_full_batches_at_once_are_those_that_follow_one_another(
    sizes: list[int],
    changes: list[int],
    cuts: list[tuple[int, int]],
    n: int,
    drop: bool,
    steps: int | None,
    most: int,
) -> None:
    plan = tuple(zip([0, *changes], sizes, strict=False))
    ranges = joined((start, start + count) for start, count in cuts)
    passes = SizedPasses.of(plan, n, drop, steps, Cuts(ranges))
    cursor = Cursor()
    for _ in range(40):
        if passes.left(cursor) == 0:
            cursor = passes.turn(cursor)
            continue
        found, at = passes.full(cursor, most), cursor
        assert len(found) <= most
        for after in found:
            spans = passes.spans(at)
            assert spans == [(at.rows, after.rows)]
            assert passes.after(at) == after
            at = after
        cursor = passes.after(cursor)


def _chain(name: str) -> Dataset:
    ds, other = Dataset({"x": np.arange(300)}, seed=3), Dataset({"x": np.arange(300, 500)})
    if name == "mix":
        return mix({"a": ds.shuffle(), "b": other}, {"a": 2, "b": 1}, stop="never")
    if name == "interleave":
        return interleave([ds, other]).shuffle().repeat()
    return ds.shuffle() if name == "passes" else ds.shuffle().repeat()


CHAINS = ["passes", "endless", "mix", "interleave"]
SIZES: list[Any] = [3, [(0, 3), (40, 5)]]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("chain", CHAINS)
def test_skips_and_exclusions_hold_within_groups(chain: str, size: Any, groups: list[int]) -> None:
    ds = _chain(chain)
    name = "/".join(ds.top.components[0].path)

    def moved(loader: Loader) -> Loader:
        # exclusions that begin at several steps, and skips, are ahead of where it then stands
        for since, records in ((0, range(20)), (17, range(100, 130)), (90, range(250, 260))):
            loader.seek(since)
            loader.skip(records=[(name, k) for k in records])
        loader.skip(range(30, 33), range(50, 52), range(95, 101))
        loader.seek(0)
        return loader

    loader, alone = moved(Loader(ds, size)), moved(Loader(ds, size))
    steps = list[int]()
    for _ in range(150):
        got = next(loader)["x"].tolist()
        assert loader.last_step is not None
        assert got == alone[loader.last_step]["x"].tolist()
        steps.append(loader.last_step)
    skipped = {*range(30, 33), *range(50, 52), *range(95, 101)}
    assert steps == [k for k in range(steps[-1] + 1) if k not in skipped]
    assert max(groups) > 3 * 20


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("sort", ["records", "steps", "cut"])
def test_arithmetic_is_done_for_many_batches_at_once(
    chain: str, sort: str, groups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = _chain(chain)
    loader = Loader(ds, 3)
    if sort == "cut":  # rows of steps that were skipped under another size
        loader.skip(range(50, 52))
        state = loader.state_dict()
        loader = Loader(ds, 2)
        loader.load_state_dict(state)
    next(loader)
    if sort == "records":
        loader.skip(records=[("/".join(ds.top.components[0].path), 8)])
    elif sort == "steps":
        loader.skip(range(60, 65))
    asked = list[int]()
    rows, after = Substitutes.rows, SizedPasses.after

    def counted_rows(self: Any, given: Any, step: int) -> Any:
        asked.append(step)
        return rows(self, given, step)

    def counted_after(self: Any, cursor: Cursor) -> Cursor:
        asked.append(cursor.step)
        return after(self, cursor)

    monkeypatch.setattr(Substitutes, "rows", counted_rows)
    monkeypatch.setattr(SizedPasses, "after", counted_after)
    for _ in range(400):
        next(loader)
    assert len(asked) < 400 / 4


def test_batches_before_the_one_that_has_no_substitutes_still_come(groups: list[int]) -> None:
    ds = Dataset(range(20)).repeat(3)
    loader = Loader(ds, 2)
    next(loader)
    loader.skip(records=range(5))
    refused = Substitutes.rows

    def rows(self: Any, given: Any, step: int) -> Any:
        if (given >= 30).any():
            raise PositionError("none is left")
        return refused(self, given, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Substitutes, "rows", rows)
        for _ in range(14):
            next(loader)
        with pytest.raises(PositionError, match="none is left"):
            next(loader)
        assert loader.step == 15
    assert len(next(loader)) == 2
    assert groups
