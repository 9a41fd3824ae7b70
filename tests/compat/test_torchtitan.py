"""torchtitan's own cases for a loader's state run in an environment that has torchtitan 0.3.0."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import islice
from types import ModuleType

import numpy as np
import pytest

from pipeline import Dataset
from tests.compat.ranks import ROOT, peer

pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")


@pytest.mark.long
def test_torchtitan_s_own_cases_for_a_loader_s_state_pass_with_ours() -> None:
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore", "tests/compat/torchtitan_state.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=ROOT,
        env=peer("torchtitan"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stdout[-4000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


def packed() -> Dataset:
    return Dataset({name: np.arange(18).reshape(6, 3) for name in ("tokens", *_MORE)})


_MORE = ("segment_ids", "positions")


@pytest.mark.parametrize(("infinite", "batches"), [(True, 7), (False, 3)])
def test_a_validator_sets_whether_passes_follow_one_another(
    infinite: bool, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Base:
        @dataclass(kw_only=True, slots=True)
        class Config:
            dataset: str = ""

    theirs = ModuleType("torchtitan.components.dataloader")
    vars(theirs)["BaseDataLoader"] = Base
    for name in ("torchtitan", "torchtitan.components"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, theirs.__name__, theirs)
    monkeypatch.delitem(sys.modules, "pipeline.compat.torchtitan", raising=False)
    ours = importlib.import_module("pipeline.compat.torchtitan").LockstepDataLoader
    monkeypatch.delitem(sys.modules, "pipeline.compat.torchtitan")
    # as torchtitan.components.validate does with the Config that it is given
    config = replace(ours.Config(dataset=f"{__name__}:packed"), infinite=infinite)
    loader = ours(config, dp_world_size=1, dp_rank=0, seq_len=2, local_batch_size=2)
    found = [batch["input"].tolist() for batch, _ in islice(loader, 7)]
    assert len(found) == batches
    assert found[3:6] == found[:3] * infinite
