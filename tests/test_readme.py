"""README's Python blocks run as written, and each example runs as a user would run it."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import main

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_readme_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert result.attempted > 30
    assert not result.failed


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example_passes_the_check(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if path.name.startswith("torch_"):
        pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")
    monkeypatch.chdir(path.parent)
    assert main(["check", f"{path.stem}:dataset"]) == 0, capsys.readouterr()


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    if path.name.startswith("torch_"):
        pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not list(tmp_path.iterdir())
