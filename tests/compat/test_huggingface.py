"""Hugging Face's Trainer, fed by a Loader: what its model is given, and how it steps."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.compat.ranks import ROOT, peer

pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("trainings")
    command = [sys.executable, "-W", "ignore", "-m", "tests.compat.trainings", str(folder)]
    env = peer("transformers")
    told = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


def test_a_run_resumed_inside_a_pass_steps_as_the_whole_one(found: Any) -> None:
    accumulated = found["accumulated"]
    for name in ("batches", "steps", "weights"):
        whole, resumed = accumulated[name]
        assert whole == resumed, name
    assert "Give steps=8" in found["refused"]


def test_a_second_training_begins_at_the_start(found: Any) -> None:
    assert found["again"][:3] == found["again"][3:]


def test_a_smaller_batch_is_tried_where_memory_is_short(found: Any) -> None:
    first, rest = found["smaller"][:3], found["smaller"][3:]
    assert set(first) == {8}
    assert set(rest) == {7}


def test_a_collator_that_is_given_makes_the_batches(found: Any) -> None:
    assert found["collated"] == [8] * 10
