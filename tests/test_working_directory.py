"""The working directory may change: what was named by a relative path stays where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import Dataset, Loader
from pipeline.debug.journal import Journal
from pipeline.sources import Storage


@pytest.mark.parametrize("workers", [0, 1])
def test_relative_paths_are_those_of_where_they_were_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    Path("a.txt").write_text("1\n2\n3\n4\n")
    storage = Storage(cache="blocks")
    loader = Loader(Dataset("a.txt").cache("rows"), 2, workers=workers)
    journal = Journal("run", loader)
    monkeypatch.chdir(there)
    with journal, loader:
        for _ in loader:
            journal.log(loss=1.0)
    storage.keep_note("key", b"value")
    assert not list(there.iterdir())
    assert {path.name for path in here.iterdir()} == {"a.txt", "blocks", "rows", "run"}
    assert list((here / "rows").glob("*/rows.*"))
    assert (here / "run" / "launches.jsonl").exists()
