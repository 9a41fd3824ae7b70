"""The laws, evaluated by threads and processes: who works cannot be seen in the data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline import Dataset, Loader, Processes, Serial, Threads
from pipeline.debug.digest import digest
from pipeline.errors import CollateError, PipelineError
from tests.datasets import Files, anything, build, indexed, run
from tests.examples import examples

STEPS = 12
THREADS = st.sampled_from([Threads(1), Threads(3)])
PROCESSES = st.sampled_from(
    [Processes(1, parent=False), Processes(2, parent=False), Processes(5, parent=False)]
)
AHEAD = st.sampled_from([0, 1000, "512MiB"])


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


@pytest.fixture(autouse=True)
def _closed(_nothing_left: None, files: Files) -> Iterator[None]:
    # sources live on in `files`, and are no leftovers
    yield
    files.close()


def _same(files: Files, recipe: Any, workers: Any, ahead: Any, remainder: Any) -> None:
    ds = build(files, recipe)
    if remainder == "drop" and not ds.counted:
        assume(len(ds) >= 4)
    serial = Loader(ds, 4, remainder=remainder)
    with Loader(ds, 4, workers=workers, ahead=ahead, remainder=remainder) as loader:
        for _ in range(STEPS):
            try:
                want = next(serial)
            except StopIteration:
                with pytest.raises(StopIteration):
                    next(loader)
                return
            except PipelineError as error:
                with pytest.raises(type(error)):
                    next(loader)
                return
            assert digest(next(loader)) == digest(want)
            assert loader.state_dict() == serial.state_dict()


@pytest.mark.long
@given(anything(), THREADS, AHEAD, st.sampled_from(["keep", "drop", "pad"]))
@examples(60)
def test_threads_change_no_data_and_no_state(
    files: Files, recipe: Any, workers: Any, ahead: Any, remainder: Any
) -> None:
    _same(files, recipe, workers, ahead, remainder)


@pytest.mark.slow
@given(anything(), PROCESSES, AHEAD, st.sampled_from(["keep", "drop", "pad"]))
@examples(6)
def test_processes_change_no_data_and_no_state(
    files: Files, recipe: Any, workers: Any, ahead: Any, remainder: Any
) -> None:
    _same(files, recipe, workers, ahead, remainder)


@pytest.mark.long
@pytest.mark.slow
@given(
    anything(),
    st.permutations([Serial(), Threads(2), Processes(1, parent=False), Processes(3, parent=False)]),
)
@examples(6)
def test_a_state_saved_under_one_is_restored_under_another(
    files: Files, recipe: Any, order: list[Any]
) -> None:
    ds = build(files, recipe).repeat()
    whole = run(Loader(ds, 4), 3 * len(order))
    assume("barren" not in whole)
    state = Loader(ds, 4).state_dict()
    for i, workers in enumerate(order):
        with Loader(ds, 4, workers=workers) as loader:
            loader.load_state_dict(json.loads(json.dumps(state)))
            assert run(loader, 3) == whole[3 * i : 3 * i + 3]
            state = loader.state_dict()


@pytest.mark.long
@given(anything(), st.lists(st.integers(0, 20), min_size=1, max_size=6), st.data())
@examples(12)
def test_seek_skip_and_peeks_with_work_under_way(
    files: Files, recipe: Any, steps: list[int], data: st.DataObject
) -> None:
    ds = build(files, recipe).repeat()
    whole, skipped = run(Loader(ds, 4), 60), set[int]()
    assume("barren" not in whole)
    with Loader(ds, 4, workers=Threads(2)) as loader:
        for step in steps:
            move = data.draw(st.sampled_from(["seek", "peek", "where", "go", "skip"]))
            if move == "seek":
                loader.seek(step)
            elif move == "peek":
                assert digest(loader[step]) == whole[step]
            elif move == "where":
                loader.where(step)
            elif move == "skip":
                some = range(loader.step, loader.step + 2)
                loader.skip(some)
                skipped.update(some)
            rest = [step for step in range(loader.step, 60) if step not in skipped]
            assert run(loader, 2) == [whole[step] for step in rest[:2]]


def test_several_batches_are_read_in_one_call_without_being_seen() -> None:
    calls: list[int] = []

    def seen(rows: Any) -> Any:
        calls.append(len(rows["x"]))
        return rows

    ds = Dataset({"x": np.arange(4000)}, seed=1).shuffle().map(seen, batched=True)
    plain = [digest(batch) for batch in Loader(ds, 16)]
    calls.clear()
    with Loader(ds, 16, workers=Threads(1)) as loader:
        assert [digest(batch) for batch in loader] == plain
    assert sum(calls) == 4000
    assert max(calls) >= 512


@pytest.mark.long
@pytest.mark.parametrize("workers", [Threads(2), Processes(2, parent=False)], ids=str)
@pytest.mark.parametrize(
    "rows",
    [
        [np.zeros(2), np.zeros(2), np.zeros(3), np.zeros(2)],
        [1, 2.0, 3, 4],
        [{"a": 1}, {"a": 1}, {"b": 1}, {"a": 1}],
        [1, 2, 1 << 70, 3],
        ["a", 1, "b", 2],
    ],
    ids=["shape", "dtype", "fields", "overflow", "object"],
)
def test_what_does_not_stack_says_the_same(workers: Any, rows: list[Any]) -> None:
    ds = Dataset(rows)
    messages: list[str] = []
    for chosen in (Serial(), workers):
        with Loader(ds, 4, workers=chosen) as loader:
            for _ in range(2):
                with pytest.raises(CollateError) as caught:
                    next(loader)
                messages.append(str(caught.value))
    assert len(set(messages)) == 1


@pytest.mark.parametrize("workers", [Threads(2), Processes(2, parent=False)], ids=str)
def test_a_collate_of_ones_own_sees_the_rows_as_stages_return_them(workers: Any) -> None:
    ds = Dataset([{"n": i, "s": "x" * i, "l": [i] * i} for i in range(8)])
    plain = list(Loader(ds, 4, collate=lambda rows: rows))
    with Loader(ds, 4, collate=lambda rows: rows, workers=workers) as loader:
        assert repr(list(loader)) == repr(plain)


@given(indexed(), st.sampled_from([1, 2, 4]))
@examples(12)
def test_hosts_with_threads_give_the_same_global_batches(
    files: Files, recipe: Any, hosts: int
) -> None:
    ds = build(files, recipe)
    assume(not 0 < len(ds) % 4 < hosts)  # a last batch without a row for a host is refused
    plain = list(Loader(ds, 4))
    parts = [list(Loader(ds, 4, host=h, hosts=hosts, workers=Threads(2))) for h in range(hosts)]
    for step, batch in enumerate(plain):
        ids = np.concatenate([part[step]["id"] for part in parts])
        assert np.array_equal(ids, batch["id"])
