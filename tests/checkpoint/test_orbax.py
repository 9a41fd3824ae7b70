"""A loader among Orbax's checkpointables: captured when asked, written in the background, whole."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from orbax.checkpoint.experimental import v1 as ocp

from pipeline import Dataset, Loader
from pipeline.checkpoint import orbax
from pipeline.errors import MismatchError, StateError


def indexed(seed: int = 0) -> Loader:
    return Loader(Dataset({"x": np.arange(40)}, seed=seed).shuffle().repeat(), 4)


def counted(seed: int = 0) -> Loader:
    data = Dataset({"x": np.arange(90)}, seed=seed).shuffle()
    return Loader(data.filter(lambda row: row["x"] % 3 > 0).lanes(2).repeat(), 4)


def rows(loader: Loader, n: int) -> list[list[int]]:
    return [next(loader)["x"].tolist() for _ in range(n)]


@pytest.mark.parametrize("make", [indexed, counted])
def test_saved_beside_arrays_and_restored_into_another(make: Any, tmp_path: Path) -> None:
    loader = make()
    rows(loader, 7)
    things = {"data": loader, "state": {"w": np.arange(3.0)}}
    saving = ocp.save_checkpointables_async(str(tmp_path / "c"), things)
    rest = rows(loader, 20)  # advances while it is being written
    saving.result()
    fresh = make()
    restored = ocp.load_checkpointables(
        str(tmp_path / "c"), {"data": fresh, "state": {"w": np.zeros(3)}}
    )
    assert restored["data"] is fresh
    assert rows(fresh, 20) == rest


def test_another_dataset_is_refused(tmp_path: Path) -> None:
    ocp.save_checkpointables(str(tmp_path / "c"), {"data": indexed()})
    with pytest.raises(MismatchError, match="seed"):
        ocp.load_checkpointables(str(tmp_path / "c"), {"data": indexed(seed=1)})


def test_written_as_json_by_the_primary_alone(tmp_path: Path) -> None:
    async def created() -> Path:
        return tmp_path

    async def save(primary: bool) -> None:
        place: Any = SimpleNamespace(await_creation=created)
        await (await orbax.save({"step": 5}, place, primary=primary))

    asyncio.run(save(False))
    assert list(tmp_path.iterdir()) == []
    asyncio.run(save(True))
    assert json.loads((tmp_path / orbax.FILE).read_text()) == {"step": 5}


@pytest.mark.parametrize("text", [None, "", '{"step": 5'])
def test_no_state_or_a_torn_one(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / orbax.FILE).write_text(text)

    async def load() -> None:
        await (await orbax.load(tmp_path, pytest.fail))

    with pytest.raises(StateError, match="holds no loader state"):
        asyncio.run(load())
