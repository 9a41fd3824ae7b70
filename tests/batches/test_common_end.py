"""Padded passes of several hosts end where those of one host do, whatever is left out when."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, merge, mix

ROWS = 30
STEPS = 12
LEFT_OUT = {0: [1, 2, 3], 2: [8, 9, 10, 11, 4, 5, 20, 21], 5: list(range(12, 19)), 8: [25]}


def _filtered() -> Dataset:
    return _part(0).filter(lambda row: row["x"] % 7 != 3, block=3)


def _repeated() -> Dataset:
    return _part(0).repeat(2).flat_map(lambda row: [row] * int(row["x"] % 3), block=4)


def _mixed() -> Dataset:
    return mix({"a": _filtered(), "b": _part(100)}, {"a": 1, "b": 2}, "all")


def _mixed_and_filtered() -> Dataset:
    return _mixed().filter(lambda row: row["x"] % 5 != 1, block=4, name="above")


def _part(first: int) -> Dataset:
    return Dataset({"x": first + np.arange(ROWS)}, seed=1).shuffle(name="order")


def _opened(ds: Dataset, hosts: int) -> list[Loader[Any]]:
    if hosts == 1:
        return [Loader(ds, 8, remainder="pad")]
    return [Loader(ds, 8, remainder="pad", host=h, hosts=hosts) for h in range(hosts)]


def _run(ds: Dataset, hosts: int, steps: Any, resume: int = -1, to: int = 1) -> list[Any]:
    loaders, found = _opened(ds, hosts), list[Any]()
    several = len(ds.components) > 1
    for i in range(STEPS):
        if i == resume:
            state = merge([json.loads(json.dumps(loader.state_dict())) for loader in loaders])
            loaders = _opened(ds, to)
            for loader in loaders:
                loader.load_state_dict(state)
        for loader in loaders if i in steps else ():
            loader.skip(records=[("a", r) for r in LEFT_OUT[i]] if several else LEFT_OUT[i])
        parts = [next(loader, None) for loader in loaders]
        assert len({(loader.step, loader.epoch) for loader in loaders}) == 1
        given = [part for part in parts if part is not None]
        rows = [row for key in ("x", "mask") for part in given for row in part[key].tolist()]
        found.append((loaders[0].step, loaders[0].epoch, rows))
    return found


@pytest.mark.parametrize("make", [_filtered, _repeated, _mixed, _mixed_and_filtered])
@pytest.mark.parametrize("steps", [(0,), (2,), (0, 2, 5, 8)])
def test_hosts_end_a_pass_where_one_does(make: Any, steps: Any) -> None:
    ds = make().lanes(4)
    alone = _run(ds, 1, steps)
    assert any(epoch for _, epoch, _ in alone)
    for hosts in (2, 4):
        assert _run(ds, hosts, steps) == alone


@pytest.mark.parametrize("make", [_filtered, _mixed_and_filtered])
@pytest.mark.parametrize("resume", [1, 4, 7])
def test_after_a_resume_on_other_hosts_too(make: Any, resume: int) -> None:
    ds = make().lanes(4)
    alone = _run(ds, 1, (0, 2, 5, 8))
    assert _run(ds, 2, (0, 2, 5, 8), resume, to=4) == alone
    assert _run(ds, 4, (0, 2, 5, 8), resume, to=1) == alone
