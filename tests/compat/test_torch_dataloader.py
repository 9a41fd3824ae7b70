"""The DataLoader-shaped face: torch's arguments, torch's passes, our state."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")

from pipeline import Dataset  # noqa: E402
from pipeline.compat.torch_dataloader import DataLoader  # noqa: E402
from pipeline.errors import OptionError  # noqa: E402


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


def test_a_pass_that_was_left_is_begun_again_and_a_restored_one_goes_on() -> None:
    ds = Dataset({"id": np.arange(10)}, seed=1)
    loader = DataLoader(ds, 4, shuffle=True)
    whole = ids(DataLoader(ds, 4, shuffle=True))
    first = next(iter(loader))
    assert first["id"].tolist() == whole[0]
    state = json.loads(json.dumps(loader.state_dict()))
    assert ids(loader) == whole
    second = ids(loader)
    assert second != whole
    assert sorted(sum(second, [])) == sorted(sum(whole, []))  # noqa: RUF017
    resumed = DataLoader(ds, 2, shuffle=True, num_workers=0)
    resumed.load_state_dict(state)
    assert sum(ids(resumed), []) == sum(whole[1:], [])  # noqa: RUF017


@pytest.mark.parametrize("name", ["sampler", "batch_sampler", "worker_init_fn", "sampels"])
def test_what_would_change_the_order_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=name):
        DataLoader(Squares(), 4, **{name: object()})  # pyright: ignore[reportArgumentType]


def test_what_is_torch_s_way_to_speed_is_accepted() -> None:
    loader = DataLoader(Squares(), 4, pin_memory=True, prefetch_factor=4, generator=None)
    assert loader.pin_memory
    loader.close()
