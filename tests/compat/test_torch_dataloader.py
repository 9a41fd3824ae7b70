"""The DataLoader-shaped face: torch's arguments, torch's passes, our state."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")

from pipeline import Dataset  # noqa: E402
from pipeline.compat.torch_dataloader import DataLoader  # noqa: E402
from pipeline.errors import BatchError, OptionError, PositionError  # noqa: E402


class Squares:
    """A dataset as torch's are."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return torch.full((3,), float(i)).numpy(), i * i


def ids(loader: Any) -> list[Any]:
    return [batch["id"].tolist() for batch in loader]


def test_it_gives_what_torch_s_gives() -> None:
    ours, theirs = DataLoader(Squares(), 4), torch.utils.data.DataLoader(Squares(), 4)
    assert len(ours) == len(theirs) == 3
    for (x, y), (u, v) in zip(ours, theirs, strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)
    assert (ours.batch_size, ours.drop_last, ours.num_workers) == (4, False, 0)
    assert len(DataLoader(Squares(), 4, drop_last=True)) == 2


def test_torch_s_own_collate_gives_torch_s_batches() -> None:
    rows = [{"ids": [i, 2 * i, 3 * i], "pair": (i, [float(i)]), "s": str(i)} for i in range(5)]
    collate = torch.utils.data.default_collate
    ours, theirs = DataLoader(rows, 2, collate_fn=collate), torch.utils.data.DataLoader(rows, 2)
    for one, other in zip(ours, theirs, strict=True):
        assert repr(one) == repr(other)
    plain = next(iter(DataLoader(rows, 2)))["ids"]
    assert plain.tolist() == [row["ids"] for row in rows[:2]]


def test_a_restored_pass_goes_on() -> None:
    ds = Dataset({"id": np.arange(10)}, seed=1)
    loader = DataLoader(ds, 4, shuffle=True)
    whole = ids(DataLoader(ds, 4, shuffle=True))
    assert next(iter(loader))["id"].tolist() == whole[0]
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = DataLoader(ds, 2, shuffle=True, num_workers=0)
    resumed.load_state_dict(state)
    assert sum(ids(resumed), []) == sum(whole[1:], [])  # noqa: RUF017
    resumed.load_state_dict(state)
    next(iter(resumed))
    assert sorted(sum(ids(resumed), [])) == list(range(10))  # noqa: RUF017


@pytest.mark.parametrize("taken", [1, 2, 3])
def test_a_loop_that_was_left_is_followed_by_the_next_pass(taken: int) -> None:
    ds = Dataset({"id": np.arange(12)}, seed=1)
    whole, left = DataLoader(ds, 4, shuffle=True), DataLoader(ds, 4, shuffle=True)
    for _ in range(3):
        passing = iter(left)
        got = [next(passing)["id"].tolist() for _ in range(taken)]
        assert got == ids(whole)[:taken]


def test_a_pass_without_a_known_end_goes_on_after_a_loop_that_was_left() -> None:
    endless = DataLoader(Dataset({"id": np.arange(12)}).repeat(), 4)
    streamed = DataLoader(Dataset({"id": np.arange(12)}).filter(lambda row: row["id"] >= 0), 4)
    for loader in (endless, streamed):
        got = [next(iter(loader))["id"].tolist() for _ in range(3)]
        assert sum(got, []) == list(range(12))  # noqa: RUF017


def test_two_loops_over_one_loader_do_not_share_its_batches() -> None:
    loader = DataLoader(list(range(12)), 4)
    outer = iter(loader)
    assert next(outer).tolist() == next(iter(loader)).tolist()
    with pytest.raises(PositionError, match="make a DataLoader for each"):
        next(outer)
    assert [batch.tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_a_seed_is_that_of_the_order() -> None:
    ds, numbers = Dataset(list(range(40)), seed=1), list(range(40))

    def first(dataset: Any, **options: Any) -> Any:
        return next(iter(DataLoader(dataset, 40, shuffle=True, **options))).tolist()

    assert first(ds) != first(ds, seed=2) != first(ds, seed=3)
    assert first(numbers) == first(numbers, seed=0) != first(numbers, seed=1)


def test_a_copy_goes_on_by_itself() -> None:
    loader = DataLoader(list(range(12)), 4)
    next(iter(loader.loader))
    for other in (copy.deepcopy(loader), pickle.loads(pickle.dumps(loader))):
        assert [batch.tolist() for batch in other.loader] == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert loader.loader.step == 1


@pytest.mark.parametrize("size", [0, None, True, 2.0])
def test_a_batch_size_is_a_whole_number(size: Any) -> None:
    with pytest.raises(BatchError, match="batch_size="):
        DataLoader(Squares(), size)


@pytest.mark.parametrize("name", ["sampler", "batch_sampler", "worker_init_fn", "sampels"])
def test_what_would_change_the_order_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=name):
        DataLoader(Squares(), 4, **{name: object()})  # pyright: ignore[reportArgumentType]


def test_what_is_torch_s_way_to_speed_is_accepted() -> None:
    loader = DataLoader(Squares(), 4, pin_memory=True, prefetch_factor=4, generator=None)
    assert loader.pin_memory
    loader.close()


def test_torch_s_attributes_are_there_with_torch_s_defaults() -> None:
    ours, theirs = DataLoader(Squares(), 4), torch.utils.data.DataLoader(Squares(), 4)
    names = ("timeout", "generator", "worker_init_fn", "prefetch_factor", "persistent_workers")
    for name in (*names, "pin_memory", "pin_memory_device", "multiprocessing_context"):
        assert getattr(ours, name) == getattr(theirs, name), name
    given = {name: getattr(theirs, name) for name in (*names, "pin_memory_device")}
    assert len(DataLoader(Squares(), 4, **given)) == 3
