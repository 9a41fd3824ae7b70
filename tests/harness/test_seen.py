"""`harness seen`: the text of a trained document is found, whatever header its record bears."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.__main__ import main
from harness.data import open_data, training_data
from harness.metrics import Screen
from harness.rundir import RunDir
from harness.seen import text_of
from pipeline import Loader
from pipeline.__main__ import main as pipeline_main


@pytest.mark.long
def test_seen(
    uninterrupted: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = uninterrupted(1)
    run = RunDir(shutil.copytree(whole, whole.parent / "seen"))
    cfg = run.begun().config()
    data = training_data(open_data(cfg, run.data(cfg), Screen(quiet=True)), cfg)
    document = Loader(data, cfg.batch_size).where(1)[2].segments[0]
    records: Any = data.components[0].source.read(np.array([document.row.record]))
    (record,) = records
    page, proof = tmp_path / "page.txt", tmp_path / "p.json"
    for text, status in ((text_of(record), 0), (b"I never said so.", 1)):
        page.write_bytes(text)
        words = ["seen", str(page), "--run", str(run.path), "--proof", str(proof)]
        assert main(words) == status
        out = "".join(capsys.readouterr().out.split())
        span = f"step1row2tokens{document.start}:{document.stop}(epoch0)"
        assert (span in out) == (status == 0)
        root = out.partition("--root")[2][:64]
        assert pipeline_main(["seen", str(page), "--check", str(proof), "--root", root]) == status
        assert "verified" in capsys.readouterr().out
