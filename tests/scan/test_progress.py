"""Long work is shown: a bar on a terminal, lines elsewhere, no error for want of either."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from pipeline import Dataset, scan
from pipeline.scan import progress


class Terminal(io.StringIO):
    """What stderr is where people look at it."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", seen := Terminal())
    scan(Dataset(range(3000)), abs, path=tmp_path / "a", workers=0)
    assert "scan abs" in seen.getvalue()
    assert "3,000/3,000 records" in seen.getvalue()
    monkeypatch.setattr(sys, "stderr", seen := Terminal())
    scan(Dataset(range(3000)), abs, path=tmp_path / "b", workers=0, progress=False)
    assert seen.getvalue() == ""


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_without_a_bar_there_are_lines(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setattr(sys, "stderr", seen := stream())
    monkeypatch.setattr(progress, "_PLAIN_EVERY", 0.0)
    with progress.progress("count", 1000, "records", done=100) as show:
        show(600)
    assert seen.getvalue().startswith("count: 600/1,000 records, ")
