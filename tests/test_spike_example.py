"""The walk of `make spike` finds what it planted, and leaves a report."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline import Dataset, Loader
from pipeline.debug.journal import Journal

ROOT = Path(__file__).parents[1]


def _run(folder: Path, spikes: tuple[int, ...], start: int = 0) -> None:
    loader = Loader(Dataset(range(240)).repeat(), 2)
    loader.seek(start)
    with Journal(folder, loader) as journal:
        for step in range(start, 60):
            next(loader)
            size = 1.0 + 0.01 * (step % 5) + 5 * (step in spikes)
            journal.log(loss=size, grad_norm=size)


def test_the_picture_marks_the_spikes_of_both_walks(tmp_path: Path) -> None:
    _run(tmp_path / "walk/spiked", (30, 45))
    _run(tmp_path / "walk/mended", ())
    _run(tmp_path / "torch", (50,))
    _run(tmp_path / "torch", (), start=40)
    script = runpy.run_path(str(ROOT / "examples/spike/picture.py"))
    drawn = ElementTree.fromstring(script["picture"](tmp_path / "walk", tmp_path / "torch"))
    texts = ["".join(each.itertext()) for each in drawn.findall(".//{*}text")]
    assert len(drawn.findall(".//{*}circle")) == 3
    assert len(drawn.findall(".//{*}polyline")) == 4
    assert {"30", "45", "50", "spiked: 2 spikes", "mended: no spikes"} <= {*texts}


@pytest.mark.long
def test_the_walk_names_what_was_planted(tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "examples/spike/walk.py"), str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "spikes of the fork: 0" in done.stdout
    assert (tmp_path / "report.html").stat().st_size < 3e6
