"""Runs of any framework on the same data are the same, and one changed token is named."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import Dataset, Loader
from pipeline.__main__ import main
from pipeline.debug.journal import Journal

ROOT = Path(__file__).parents[2]
BUILD, CHANGED = "tests.debug.loops:build", "tests.debug.loops:build_changed"


def run(kind: str, folder: Path, steps: int, ranks: int = 1, data: str = BUILD) -> None:
    """Train in so many processes, and wait for them."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    script = [sys.executable, "-m", "tests.debug.loops", kind, str(folder), str(steps)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"
    processes = [
        subprocess.Popen(
            [*script, str(rank), str(ranks), str(port), data],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    for process in processes:
        out, _ = process.communicate(timeout=600)
        assert process.returncode == 0, out


def asked(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, Any]:
    """A command's exit status and what it printed as JSON."""
    status = main([*map(str, words), "--json"])
    return status, json.loads(capsys.readouterr().out)


def _same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: int, torch: int, jax: int
) -> None:
    run("numpy", tmp_path / "numpy", steps)
    run("torch", tmp_path / "torch", steps, torch)
    run("jax", tmp_path / "jax", steps, jax)
    for kind in ("torch", "jax"):
        status, found = asked(capsys, "same", tmp_path / "numpy", tmp_path / kind)
        assert (status, found["equal"], found["batches"]) == (0, steps, steps), found
    status, found = asked(
        capsys, "replay", tmp_path / "jax", "--steps", f"{steps - 3}:{steps}", "--data", BUILD
    )
    assert (status, found["proved"]) == (0, 3)


@pytest.mark.long
def test_torch_and_numpy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    run("numpy", tmp_path / "numpy", 30)
    run("torch", tmp_path / "torch", 30, 2)
    status, found = asked(capsys, "same", tmp_path / "numpy", tmp_path / "torch")
    assert (status, found["equal"], found["batches"]) == (0, 30, 30), found


@pytest.mark.long
def test_torch_jax_and_numpy_over_a_thousand_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    _same(tmp_path, capsys, 1000, 2, 4)


edited = Dataset(range(40), seed=2).shuffle()  # what a module's name stands for now


def test_a_name_that_was_edited_between_two_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        loader = Loader(Dataset(range(40), seed=seed).shuffle(), 4)
        with Journal(tmp_path / str(seed), loader, data=f"{__name__}:edited") as journal:
            for _ in loader:
                journal.log(loss=1.0)
    status, found = asked(capsys, "same", tmp_path / "1", tmp_path / "2")
    assert (status, found["first_differing_step"], found["row"]) == (1, 0, None)
    assert list(found["explained_by"]) == ["seed"]
    assert "was trained on another dataset. seed: 1 -> 2" in found["note"]


@pytest.mark.slow
def test_one_changed_token_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("numpy", tmp_path / "a", 40)
    run("numpy", tmp_path / "b", 40, data=CHANGED)
    status, found = asked(capsys, "same", tmp_path / "a", tmp_path / "b")
    assert status == 1
    assert 0 < found["equal"] == found["first_differing_step"] < 40
    assert found["value"].startswith("tokens["), found
    assert found["value"].endswith(": 32 and 0"), found
    records = [each["record"] for each in found["records"]]
    assert all("record 41 of MemorySource" in record and "token " in record for record in records)
    assert any("_one_token" in text for text in found["explained_by"].values()), found
