"""The walk of `make spike` finds what it planted, and leaves a report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.long
def test_the_walk_names_what_was_planted(tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "examples/spike/walk.py"), str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "spikes of the fork: 0" in done.stdout
    assert (tmp_path / "report.html").stat().st_size < 3e6
