"""How functions are called: once a row, their errors located, rows of no use refused by stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Processes, Threads, concatenate
from pipeline.errors import ChainError, CollateError

ENGINES = [0, Threads(2), Processes(1, parent=False)]


def stop(row: Any) -> Any:
    return next(iter(())) if row == 5 else row


def leave(row: Any) -> Any:
    raise SystemExit(123)


def none(row: Any) -> Any:
    return None if row == 5 else row


def generator(row: Any) -> Any:
    return (i for i in range(row))


def all_of(ds: Dataset, workers: Any, **options: Any) -> list[Any]:
    with Loader(ds, 2, workers=workers, **options) as loader:
        return list(loader)


@pytest.mark.parametrize("workers", ENGINES, ids=repr)
@pytest.mark.parametrize("stage", ["map", "random_map", "map_with_index", "filter", "flat_map"])
def test_stop_iteration_ends_no_loop(stage, workers):
    f = {"map_with_index": lambda i, row: stop(row), "random_map": lambda row, rng: stop(row)}
    ds = getattr(Dataset(range(8)), stage)(f.get(stage, stop), name="mine")
    if stage in ("filter", "flat_map"):
        bad = {"filter": lambda row: stop(row) is not None, "flat_map": lambda row: [stop(row)]}
        ds = getattr(Dataset(range(8)), stage)(bad[stage], name="mine")
    with pytest.raises(RuntimeError, match=f"{stage} 'mine' raised StopIteration") as info:
        all_of(ds, workers)
    assert any("record 5 of" in note for note in info.value.__notes__)


def test_an_exit_names_stage_and_record():
    with pytest.raises(SystemExit) as info:
        all_of(Dataset(range(8)).map(leave, name="mine"), 0)
    assert info.value.code == 123
    assert "map 'mine', on record 0" in info.value.__notes__[0]


@pytest.mark.long
@pytest.mark.parametrize("workers", ENGINES, ids=repr)
def test_rows_that_can_be_read_once_are_refused(workers):
    for made in (generator, lambda row: iter([row]), lambda row: zip([row], [row], strict=True)):
        with pytest.raises(ChainError, match=r"map 'mine' returned a .* as a row") as info:
            all_of(Dataset(range(8)).map(made, name="mine"), workers)
        assert any("record 0 of" in note for note in info.value.__notes__)
    with pytest.raises(ChainError, match="flat_map 'mine' returned a generator as a row"):
        all_of(Dataset(range(8)).flat_map(lambda x: [generator(x)], name="mine"), workers)
    assert len(all_of(Dataset(range(8)).flat_map(generator), workers)) == 14


@pytest.mark.long
@pytest.mark.parametrize("workers", ENGINES, ids=repr)
@pytest.mark.parametrize("collate", [None, list])
def test_a_none_row_is_refused_by_the_map_that_made_it(workers, collate):
    ds = Dataset(range(8)).map(none, name="mine")
    for chain in (ds, ds.shuffle(), ds[2:7], ds.repeat(2), ds.filter(lambda row: True)):
        with pytest.raises(CollateError, match="map 'mine' returned None for record 5 of"):
            all_of(chain, workers, collate=collate)
    everywhere = Dataset(range(8)).map(lambda row: None, name="mine")
    with pytest.raises(CollateError, match="map 'mine' returned None for record 0 of"):
        all_of(everywhere, workers, collate=collate)
    kept = all_of(ds.filter(lambda row: row is not None), workers)
    assert np.concatenate(kept).tolist() == [0, 1, 2, 3, 4, 6, 7]


@pytest.mark.parametrize(
    "source", [[None, "a"], np.array(["a", None], object)], ids=["list", "array"]
)
def test_a_none_record_is_refused_too(source):
    with pytest.raises(CollateError, match=r"record . of .* is None"):
        all_of(Dataset(source), 0)
    assert all_of(Dataset([{"x": row} for row in source]), 0)[0]["x"].dtype == object


@pytest.mark.long
@pytest.mark.parametrize("workers", ENGINES, ids=repr)
def test_rows_without_leaves_are_rows(workers):
    for row in ({}, (), {"a": {}}):
        for ds in (Dataset([row] * 4), Dataset([row] * 4).map(lambda r: r)):
            assert all_of(ds.shuffle(), workers) == [row, row]
            assert all_of(ds.filter(lambda r: True), workers) == [row, row]
        assert all_of(Dataset([row] * 4).map(lambda c: c, batched=True), workers) == [row, row]


def test_a_function_is_called_once_a_row():
    calls: list[int] = []
    ds = Dataset(range(100)).map(lambda row: calls.append(row) or row, name="counted")
    assert [row for batch in all_of(ds, 0) for row in batch] == calls == list(range(100))


@pytest.mark.parametrize("workers", [0, Threads(1)])
def test_none_that_is_handed_on_is_told_of_its_maker(workers: Any) -> None:
    def same(row: Any) -> Any:
        return row

    ds = Dataset([*range(8), None])[:8].map(lambda x: None if x == 5 else x, name="mine")
    for chain in (
        ds.map(same),
        ds.random_map(lambda row, _: row, name="r").filter(lambda _: True).map(same),
        ds.map(same).flat_map(lambda row: [row]),
        concatenate([ds.map(same), ds.map(same)]).map(same),
    ):
        with (
            Loader(chain, 8, workers=workers) as loader,
            pytest.raises(CollateError, match=r"map 'mine' returned None for record 5 of"),
        ):
            next(loader)
    dropped = ds.filter(lambda row: row is not None).map(lambda x: None, name="later")
    with pytest.raises(CollateError, match=r"map 'later' returned None for record 0 of"):
        next(Loader(dropped, 4))
    with pytest.raises(CollateError, match=r"^record 1 of .* is None"):
        next(Loader(Dataset([0, None]).map(same), 2))
