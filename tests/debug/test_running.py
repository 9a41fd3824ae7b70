"""What a running loader shows: readings, lines, metrics, and spans on jax's timeline."""

from __future__ import annotations

import sys
import threading
import time
import types
import urllib.request
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Threads
from pipeline.debug import live
from pipeline.debug.running import reading
from pipeline.errors import PipelineError


def spin(seconds: float) -> Any:
    def f(row: Any) -> Any:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return row

    return f


def test_a_reading_tells_of_the_time_since_the_last() -> None:
    ds = Dataset({"x": np.arange(400)}).map(spin(0.0005), name="slow").repeat()
    with Loader(ds, 10) as loader:
        for _ in range(5):
            next(loader)
        before = loader.stats()
        for _ in range(40):  # more than are evaluated in one go
            next(loader)
        found = reading(before, loader.stats())
        assert (found.batches, found.limit) == (40, "stage 0: map 'slow'")
        assert 0.5 < found.stall <= 1
        before = loader.stats()
        time.sleep(0.2)  # the loop is at something else
        assert reading(before, loader.stats()).batches == 0
        next(loader)
        assert reading(before, loader.stats()).rate < 10 / 0.2
    fast = Loader(Dataset({"x": np.arange(400)}), 10)
    next(fast)
    before = fast.stats()
    time.sleep(0.2)
    next(fast)
    assert reading(before, fast.stats()).limit == "the loop"


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    threads = threading.active_count()
    loader = Loader(Dataset({"x": np.arange(40)}).map(spin(0.001), name="slow"), 10)
    assert len(list(live(loader, every=0.005))) == 4
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert all(line.startswith("data: batch ") for line in lines)
    assert "rows/s, stalled" in "".join(lines)
    assert threading.active_count() == threads


def test_a_terminal_shows_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with live(Loader(Dataset(range(40)), 10), every=60) as shown:
        list(shown._loader)
    assert "batch 4:" in capsys.readouterr().err


def test_prometheus_finds_the_metrics() -> None:
    loader = Loader(Dataset(range(40)), 10)
    with live(loader, every=60, metrics=0) as shown:
        next(loader)
        where = f"http://127.0.0.1:{shown.port}"
        with urllib.request.urlopen(f"{where}/metrics") as page:
            assert "lockstep_rows_total 10" in page.read().decode()
        with pytest.raises(OSError, match="404"):
            urllib.request.urlopen(f"{where}/other")


@pytest.mark.parametrize("terminal", [False, True])
def test_one_view_shows_epoch_after_epoch(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    view = live(Loader(Dataset(range(40)), 10), every=60, metrics=0)
    assert [len(list(view)) for _ in range(3)] == [4, 4, 4]


@pytest.mark.parametrize("port", [None, 1 << 20], ids=["taken", "no port"])
def test_a_port_that_cannot_be_had_is_told(port: int | None) -> None:
    threads, loader = threading.active_count(), Loader(Dataset(range(40)), 10)
    with live(loader, every=60, metrics=0) as first:
        port = port or first.port
        with pytest.raises(PipelineError, match=rf"metrics={port}: .*metrics=0 takes a free one"):
            list(live(loader, metrics=port))
    assert threading.active_count() == threads


def test_stages_stand_on_the_timeline_of_a_profiler_of_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[str] = []

    class Annotation:
        def __init__(self, name: str) -> None:
            self._name = name

        def __enter__(self) -> None:
            spans.append(self._name)

        def __exit__(self, *_: object) -> None: ...

    jax = types.SimpleNamespace(profiler=types.SimpleNamespace(TraceAnnotation=Annotation))
    ds = Dataset({"x": np.arange(4)}).map(lambda r: r, name="same")
    monkeypatch.setitem(sys.modules, "jax", jax)
    with Loader(ds, 2, workers=Threads(1)) as loader:
        next(loader)
    wanted = {"lockstep source", "lockstep stage 0: map 'same'", "lockstep next batch"}
    assert wanted <= set(spans)
    monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace())  # it is being imported
    assert len(list(Loader(ds, 2))) == 2
