"""Batch sizes that change on the way: the same rows in the same order, cut differently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pipeline import Dataset, Loader, merge
from pipeline.debug.digest import digest
from pipeline.errors import BatchError, LengthError, PipelineError, PositionError
from pipeline.sampling.cursor import Cursor
from pipeline.sampling.passes import Passes, SizedPasses
from pipeline.sampling.sizes import sizes_of
from tests.datasets import Files, anything, build, counted, gives_rows, joined, run
from tests.examples import examples

SIZES = st.lists(st.sampled_from([4, 8, 12]), min_size=1, max_size=4)
STEPS = st.lists(st.integers(1, 9), min_size=3, max_size=3, unique=True).map(sorted)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


def schedule(sizes: list[int], steps: list[int]) -> list[tuple[int, int]]:
    return list(zip([0, *steps], sizes, strict=False))


def rows(batch: Any) -> list[str]:
    n = len(next(iter(batch.values())))
    return [digest({k: v[i] for k, v in batch.items()}) for i in range(n)]


@pytest.mark.long
@examples(12)
@given(anything(), SIZES, STEPS, st.integers(0, 11), st.integers(0, 11))
def test_rows_are_those_of_one_size(
    files: Files, recipe: Any, sizes: list[int], steps: list[int], to: int, back: int
) -> None:
    ds = build(files, recipe).repeat()
    ds = ds.lanes(1) if ds.counted else ds
    assume(gives_rows(ds))
    plan = schedule(sizes, steps)
    loader = Loader(ds, plan)
    batches = [next(loader) for _ in range(12)]
    assert [len(rows(b)) for b in batches] == [
        next(size for since, size in reversed(plan) if since <= k) for k in range(12)
    ]
    flat = [r for b in batches for r in rows(b)]
    one = Loader(ds, 4)
    assert flat == [r for _ in range(len(flat) // 4) for r in rows(next(one))]
    for step in (to, back):
        loader.seek(step)
        assert digest(next(loader)) == digest(batches[step])
        state = json.loads(json.dumps(loader.state_dict()))
        fresh = Loader(ds, plan)
        fresh.load_state_dict(state)
        assert run(fresh, 2) == run(loader, 2)
        fresh.seek(back)
        assert digest(next(fresh)) == digest(batches[back])


@pytest.mark.long
@examples(20)
@given(anything(), SIZES, STEPS, st.sampled_from(["keep", "drop", "pad"]), st.none() | st.just(1))
def test_passes_end_and_steps_are_found(
    files: Files, recipe: Any, sizes: list[int], steps: list[int], remainder: Any, most: int | None
) -> None:
    ds = build(files, recipe)
    assume(most is not None or not ds.endless)
    ds = ds.lanes(2) if ds.counted else ds
    assume(ds.counted or len(ds) >= max(sizes))
    plan = schedule(sizes, steps)
    loader = Loader(ds, plan, remainder=remainder, steps=most)
    seen: list[tuple[int, str]] = []
    try:
        for epoch in range(6):
            assert loader.epoch == epoch
            seen += [(epoch, digest(batch)) for batch in loader]
    except PipelineError:
        assert most is not None or remainder == "drop"
        assert ds.counted
        return
    for step in {0, len(seen) // 2, len(seen) - 1} & set(range(len(seen))):
        fresh = Loader(ds, plan, remainder=remainder, steps=most)
        fresh.seek(step)
        assert (fresh.epoch, digest(next(fresh))) == seen[step]


@pytest.mark.long
@examples(12)
@given(counted(), SIZES, STEPS)
def test_lanes_share_every_size(
    files: Files, recipe: Any, sizes: list[int], steps: list[int]
) -> None:
    ds = build(files, recipe).lanes(4).repeat()
    assume(gives_rows(ds))
    plan = schedule(sizes, steps)
    whole = Loader(ds, plan)
    hosts = [Loader(ds, plan, host=h, hosts=2) for h in range(2)]
    for _ in range(6):
        parts = [next(loader) for loader in hosts]
        assert digest(joined(parts)) == digest(next(whole))
    assert merge([loader.state_dict() for loader in hosts]) == whole.state_dict()


@given(
    st.integers(1, 30),
    st.booleans(),
    SIZES.map(lambda sizes: [s // 4 for s in sizes]),
    STEPS,
    st.integers(0, 25),
)
@example(5, True, [2, 1], [2, 3, 4], 5)
@example(7, True, [2, 3], [3, 4, 5], 9)
def test_locating_is_going_step_by_step(
    n: int, drop: bool, sizes: list[int], steps: list[int], to: int
) -> None:
    assume(n >= max(sizes))
    passes = SizedPasses.of(sizes_of(schedule(sizes, steps)), n, drop)
    cursor = Cursor()
    for step in range(to):
        ((start, stop),) = passes.spans(cursor)
        assert 0 < stop - start <= passes.size(step)
        assert not drop or stop - start == passes.size(step)
        left = passes.left(cursor)
        assert left is not None
        assert left > 0
        after = passes.after(cursor)
        assert passes.left(after) == left - 1 if left > 1 else after.epoch == cursor.epoch + 1
        cursor = after
    assert passes.locate(to) == cursor
    assert passes.reaches(cursor, Cursor())


def test_one_size_is_what_passes_say() -> None:
    for n, drop, steps in [(10, False, None), (10, True, 2), (1 << 62, False, 3), (0, False, None)]:
        one, many = Passes(n, 4, drop, steps), SizedPasses.of(((0, 4),), n, drop, steps)
        assert (one.per_pass, one.left(Cursor())) == (many.per_pass, many.left(Cursor()))
        if n:
            assert [one.locate(k, Cursor()) for k in range(9)] == [many.locate(k) for k in range(9)]


def test_a_schedule_grows_on_resume() -> None:
    for ds in (Dataset(range(100)).repeat(), Dataset(range(100)).filter(bool).repeat()):
        old = Loader(ds, 4)
        run(old, 10)
        new = Loader(ds, [(0, 4), (10, 8)])
        new.load_state_dict(old.state_dict())
        assert digest(new[3]) == digest(old[3])
        assert len(next(new)) == 8
        changed = Loader(ds, [(0, 4), (9, 8)])
        changed.load_state_dict(old.state_dict())
        with pytest.raises(PositionError, match="of other batches"):
            changed.seek(3)


def test_lengths_are_refused_where_passes_differ() -> None:
    ds = Dataset(range(10))
    with pytest.raises(LengthError, match=r"its batch size changes\. Give steps="):
        len(Loader(ds, [(0, 2), (3, 5)]))
    assert len(Loader(ds, [(0, 2), (3, 5)], steps=2)) == 2
    assert len(Loader(ds, [(0, 2), (3, 2)])) == 5


@pytest.mark.parametrize(
    "wrong", [[], [(1, 4)], [(0, 4), (0, 8)], [(0, 4), (5, 8), (3, 4)], [(0, 0)], [(0, 4.0)], [4]]
)
def test_what_is_no_schedule_is_refused(wrong: Any) -> None:
    with pytest.raises(BatchError, match="batch_size"):
        Loader(Dataset(range(10)), wrong)


def test_every_size_must_fit() -> None:
    ds = Dataset({"x": np.arange(50)})
    with pytest.raises(BatchError, match=r"batch_size=6 .* hosts=4\. Nearest: 4, 8"):
        Loader(ds, [(0, 4), (9, 6)], host=0, hosts=4)
    with pytest.raises(BatchError, match=r"batch_size=5 does not split over lanes=2"):
        Loader(ds.filter(lambda row: True).lanes(2), [(0, 4), (9, 5)])
    with pytest.raises(BatchError, match="leaves nothing: batch_size=60"):
        Loader(ds, [(0, 4), (9, 60)], remainder="drop")


def test_once_reads_a_schedule_from_its_start(tmp_path: Path) -> None:
    once = Loader(Dataset(range(9)), [(0, 2), (2, 5)]).once()
    assert [b.tolist() for b in once] == [[0, 1], [2, 3], [4, 5, 6, 7, 8]]
