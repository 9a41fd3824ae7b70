"""README is one screen whose scripts do what it says; each example runs as a user would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import main
from tests.docs.blocks import blocks

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
EXAMPLES.remove(ROOT / "examples" / "mnist.py")  # which needs the digits


def test_readme_is_short_and_its_scripts_too() -> None:
    assert len(README.splitlines()) < 100
    first, resumed = (block.code for block in blocks(README) if block.language == "python")
    assert len([line for line in first.splitlines() if line]) <= 5
    assert len([line for line in resumed.splitlines() if line]) <= 11


@pytest.mark.slow
def test_the_script_of_readme_resumes_after_a_kill(tmp_path: Path) -> None:
    (script,) = (block for block in blocks(README) if block.title)
    (tmp_path / script.title).write_text(script.code)
    command = [sys.executable, script.title]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    whole = done.stdout.splitlines()
    assert len(whole) == 96  # three passes of 32 batches
    (tmp_path / "state.json").unlink()
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    before = [next(process.stdout).strip() for _ in range(40)]
    process.kill()
    before += [line.strip() for line in process.stdout]
    process.wait()
    process.stdout.close()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    after = done.stdout.splitlines()
    # the kill may come between a step and the state that tells of it: that step is done again
    assert whole in (before + after, before[:-1] + after)


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example_passes_the_check(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if path.name.startswith("torch_"):
        pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")
    monkeypatch.chdir(path.parent)
    assert main(["check", f"{path.stem}:dataset"]) == 0, capsys.readouterr()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    if path.name.startswith("torch_"):
        pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not list(tmp_path.iterdir())
