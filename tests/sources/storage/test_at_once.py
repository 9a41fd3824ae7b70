"""Files far away are opened together: a source of many costs a few round trips, not one a file."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.sources.formats import open_path
from pipeline.sources.storage.at_once import at_once
from tests.emulators.fixtures import Gcs
from tests.tools.inspection.formats import FORMATS

FILES, ROWS = 16, 10


@pytest.mark.parametrize("kept", [False, True], ids=["no cache", "cache"])
@pytest.mark.parametrize("name", list(FORMATS))
def test_many_files_cost_a_few_round_trips(
    gcs: Gcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kept: bool
) -> None:
    monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path / "cache") if kept else "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "indexes"))
    suffix, write, *_ = FORMATS[name]
    for i in range(FILES):
        (folder := tmp_path / f"{i:02}").mkdir()
        write(folder / f"a{suffix}", range(i * ROWS, (i + 1) * ROWS))
        for file in folder.iterdir():
            gcs.upload(file, f"{i:02}/{file.name}")
    near = open_path(str(tmp_path / f"??/a{suffix}"))
    gcs.control(latency=0.05, forget=True)
    source: Any = open_path(f"{gcs.bucket}/??/a{suffix}", storage=gcs.storage())
    assert gcs.alone() < FILES / 2
    rows = np.arange(FILES) * ROWS + 3
    for _ in range(2):  # as counted, and as a worker gets it
        gcs.forget()
        far, expected = source.read(rows), near.read(rows)
        assert repr(far) == repr(expected)
        assert gcs.alone() < FILES / 2
        source.close()


def test_an_error_is_raised_at_once_and_what_waits_is_not_begun() -> None:
    begun, ended, go = set[int](), set[int](), threading.Event()

    def call(i: int) -> None:
        begun.add(i)
        if i == 0:
            raise ValueError("no")
        go.wait(10)
        ended.add(i)

    with pytest.raises(ValueError, match="no"):
        at_once(call, range(10_000), far=True)
    assert not ended
    go.set()
    assert len(begun) < 100
    assert at_once(lambda i: -i, range(100), far=True) == [-i for i in range(100)]
