"""Replay proves true ledgers and names the first step of a false one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.__main__ import main
from tests.harness.runs import LIMIT, Workplace

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(
    uninterrupted: Callable[[int], Path], request: pytest.FixtureRequest
) -> Callable[[Callable[[list[dict[str, Any]]], None]], Path]:
    """A copy of the uninterrupted run with a changed ledger."""
    whole = uninterrupted(1)
    run = whole.parent / request.node.name

    def make(change: Callable[[list[dict[str, Any]]], None]) -> Path:
        shutil.copytree(whole, run)
        lines = [json.loads(line) for line in (whole / "ledger.jsonl").read_text().splitlines()]
        change(lines)
        (run / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return run

    return make


@pytest.mark.long
def test_true_ledger(
    uninterrupted: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = uninterrupted(1)
    before = sorted(p.name for p in run.rglob("*"))
    assert main(["replay", "--run", str(run), "--steps", "22:31"]) == 0
    out = capsys.readouterr().out
    assert "from checkpoint 20" in out
    assert "9 steps proved equal" in out
    assert sorted(p.name for p in run.rglob("*")) == before


@pytest.mark.long
def test_false_loss(copy: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = copy(lambda lines: lines[13].update(loss_bits="40000000"))
    assert main(["replay", "--run", str(run), "--steps", "10:20"]) == 1
    out = capsys.readouterr().out
    assert "step 13 differs" in out
    assert "loss bits 40000000 (2.0) in the ledger" in out


@pytest.mark.long
def test_false_digest_in_one_of_two_launches(
    copy: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def twice(lines: list[dict[str, Any]]) -> None:
        lines.insert(12, {**lines[11], "launch": 1, "digest": "0" * 16})

    run = copy(twice)
    assert main(["replay", "--run", str(run), "--steps", "10:13"]) == 1
    out = capsys.readouterr().out
    assert "step 11 differs from the ledger's line of launch 1: batch digest 0000" in out
    # on the way to later steps it is named as well: they stand on it
    assert main(["replay", "--run", str(run), "--steps", "12:13"]) == 1
    assert "step 11 differs" in capsys.readouterr().out


@pytest.mark.long
def test_damaged_checkpoint(copy: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = copy(lambda lines: None)
    (run / "checkpoints/20/data/loader.json").unlink()
    assert main(["replay", "--run", str(run), "--steps", "20:21"]) == 2
    assert "checkpoints/20 is damaged" in capsys.readouterr().err


@pytest.mark.long
def test_checkpoint_s_arrays_gone(copy: Callable[..., Path], workplace: Workplace) -> None:
    run = copy(lambda lines: None)
    shutil.rmtree(run / "checkpoints/20/state/d")
    command = [sys.executable, "-m", "harness", "replay", "--run", str(run), "--steps", "20:21"]
    done = subprocess.run(
        command, env=workplace.environment(), capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 2
    assert "checkpoints/20 is damaged: leaf " in done.stderr
    assert "NOT_FOUND" in done.stderr


@pytest.mark.long
def test_show(uninterrupted: Callable[[int], Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = uninterrupted(1)
    assert main(["replay", "--run", str(run), "--steps", "1:2", "--show"]) == 0
    out = capsys.readouterr().out
    assert "step 1, data step 1" in out
    assert out.count("  row 7  epoch 0  record ") >= 1
    assert ".arrayrecord  tokens [" in out


@pytest.mark.long
def test_steps_that_the_ledger_lacks(
    uninterrupted: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = uninterrupted(1)
    assert main(["replay", "--run", str(run), "--steps", "30:50"]) == 2
    assert "no line for step 40; it has 0:40: choose" in capsys.readouterr().err


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--run", str(tmp_path), "--steps", "0:1"]) == 2
    assert "there is no run" in capsys.readouterr().err
