"""A trace: a lane a worker, works and waits within it, arrows that end where a batch was made."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Processes, Threads
from pipeline.__main__ import main
from pipeline.debug.trace import Trace


def dataset() -> Dataset:
    return Dataset({"x": np.arange(400)}).map(lambda r: {"x": sum(range(2000)) + r["x"]}, name="m")


def traced(ds: Dataset, workers: Any) -> list[dict[str, Any]]:
    trace = Trace()
    with trace.of(Loader(ds, 10, workers=workers)) as loader:
        plain = [batch["x"].tolist() for batch in trace.batches(loader)]
    assert plain == [batch["x"].tolist() for batch in Loader(ds, 10)]
    return trace.events()


@pytest.mark.parametrize(
    "workers", [0, Threads(2), Processes(2, parent=False)], ids=["serial", "threads", "processes"]
)
@pytest.mark.parametrize("streamed", [False, True])
def test_works_and_batches_are_on_their_lanes(workers: Any, streamed: bool) -> None:
    ds = dataset().filter(lambda r: True, block=16, name="all") if streamed else dataset()
    events = traced(ds, workers)
    lanes = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    slices = [e for e in events if e["ph"] == "X"]
    works = [e for e in slices if e["name"].startswith("work ")]
    waits = [e for e in slices if e["name"].startswith("batch ")]
    assert [e["args"]["step"] for e in waits] == [*range(40)]
    assert all(e["tid"] == 0 for e in waits)
    assert sum(e["args"]["rows"] for e in works) >= 400
    assert lanes[0] == "loop"
    assert {e["tid"] for e in slices} <= lanes.keys()
    for stage in (e for e in slices if e["name"].startswith("stage")):
        around = [w for w in works if w["tid"] == stage["tid"] and inside(w, stage["ts"])]
        assert around, "a stage's time lies in a work's"
    if not workers:
        assert {e["tid"] for e in works} == {0}
        return
    assert {e["tid"] for e in works} <= {1, 2}
    arrows = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert arrows.keys() == ends.keys()
    for number, start in arrows.items():
        assert any(w["tid"] == start["tid"] and inside(w, start["ts"]) for w in works)
        assert any(inside(w, ends[number]["ts"]) for w in waits)
        assert start["ts"] <= ends[number]["ts"]
    reached = {e["args"]["step"] for e in waits if e["args"]["works"]}
    assert reached == {*range(40)} or streamed


@pytest.mark.parametrize(
    "workers", [0, Threads(2), Processes(2), Processes(2, parent=False)], ids=str
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_trace_adds_up_to_the_loaders_stats(workers: Any, streamed: bool) -> None:
    ds = dataset().filter(lambda r: True, block=16, name="all") if streamed else dataset()
    trace = Trace()
    with trace.of(Loader(ds, 10, workers=workers)) as loader:
        for batch in trace.batches(loader):
            del batch
        loader.close()
        loader.seek(0)
        for batch in trace.batches(loader):  # by other workers, whose works have other numbers
            del batch
    stats, events = loader.stats(), trace.events()
    slices = [e for e in events if e["ph"] == "X" and not e["name"].startswith("batch ")]
    works = [e for e in slices if e["name"].startswith("work ")]
    assert len({e["args"]["work"] for e in works}) == len(works)
    rows = Counter[str]()
    for stage in slices:
        rows[stage["name"]] += stage["args"]["rows"]
    assert all(rows[s.name] == s.rows for s in stats.stages)
    assert sum(e["dur"] for e in works) == pytest.approx(stats.busy * 1e6, rel=0.01)


def inside(slice: dict[str, Any], ts: float) -> bool:
    return slice["ts"] - 1 <= ts <= slice["ts"] + slice["dur"] + 1


loader = Loader(dataset(), 10, workers=Threads(1))


@pytest.mark.long
def test_the_command_writes_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "trace.json"
    words = ["profile", f"{__name__}:loader", "--seconds", "0.1", "--trace", str(out)]
    assert main([*words, "--html", str(tmp_path / "p.html")]) == 0
    assert "ui.perfetto.dev" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert {e["ph"] for e in found["traceEvents"]} == {"M", "X", "s", "f"}
    assert "limited by" in (tmp_path / "p.html").read_text()
