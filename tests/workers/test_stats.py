"""Figures of stages, workers and queue: true in every executor, and cheap."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Processes, Serial, Threads, TorchFeed, concatenate, mix
from pipeline.debug.running import reading


def _spin(row: Any) -> Any:
    end = time.perf_counter() + 0.0005
    while time.perf_counter() < end:
        pass
    return row


def _dataset() -> Dataset:
    columns = {"x": np.arange(200), "y": np.zeros((200, 100), np.float32)}
    return Dataset(columns).map(_spin, name="spin").filter(lambda r: r["x"] % 2 == 0, name="even")


@pytest.mark.parametrize("workers", [Serial(), Threads(2), Processes(2, parent=False)], ids=str)
def test_each_stage_is_counted_wherever_it_runs(workers: Any) -> None:
    with Loader(_dataset(), 10, workers=workers) as loader:
        list(loader)
        stats = loader.stats()
    assert [(s.name, s.rows) for s in stats.stages] == [
        ("source", 200),
        ("stage 0: map 'spin'", 200),
        ("stage 1: filter 'even'", 100),
        ("collate", 100),
    ]
    source, spin, _, collate = stats.stages
    assert source.bytes == 200 * 408
    assert collate.bytes == stats.bytes == 100 * 408
    assert spin.seconds >= 200 * 0.0005
    assert stats.limit == spin.name
    assert (stats.batches, stats.rows, stats.restarts) == (10, 100, 0)
    assert stats.busy >= spin.seconds * 0.99
    assert 0 < stats.wait <= stats.seconds
    if stats.workers:
        assert (stats.workers, stats.asked, stats.ready) == (2, 0, 0)
        assert 0 < stats.occupancy <= 1


def test_a_slow_loop_is_named_as_the_limit() -> None:
    with Loader(_dataset().repeat(), 10, workers=Threads(2)) as loader:
        next(loader)
        while loader.stats().ready < 2:  # the loop is at something else
            time.sleep(0.01)
        stats = loader.stats()
    assert replace(stats, seconds=stats.first + 1, wait=stats.first + 0.09).limit == "the loop"
    limit = replace(stats, seconds=stats.first + 1, wait=stats.first + 0.11).limit
    assert limit == "stage 0: map 'spin'"


@pytest.mark.parametrize("workers", [Serial(), Threads(2)], ids=str)
@pytest.mark.parametrize(("wait", "limit"), [(0.09, "the loop"), (0.11, "stage 0: map 'spin'")])
def test_the_loop_is_the_limit_whoever_evaluates(workers: Any, wait: float, limit: str) -> None:
    with Loader(_dataset().repeat(), 10, workers=workers) as loader:
        next(loader)
        assert loader.stats().limit == "stage 0: map 'spin'"  # one batch tells nothing of the loop
        next(loader)
        stats = loader.stats()
    slow = replace(stats, seconds=stats.first + 1, wait=stats.first + wait)
    assert (slow.limit, reading(None, slow).limit) == (limit, limit)


def test_the_clock_stands_between_passes() -> None:
    loader = Loader(Dataset(range(8)), 4)
    for _ in range(2):
        list(loader)
        ended = loader.stats().seconds
        time.sleep(0.01)
        assert loader.stats().seconds == ended


def test_a_joins_parts_stand_before_it_and_devices_last() -> None:
    pytest.importorskip("torch")
    parts = [Dataset(range(4)).map(str, name="a").map(int, name="b") for _ in range(11)]
    inner = mix({"x": concatenate(parts), "y": parts[0]}, {"x": 1, "y": 1}, stop="never")
    loader = Loader(inner.map(abs, name="top"), 90, feed=TorchFeed())
    next(loader)
    stages = loader.stats().stages
    chain = ["source", "stage 0: map 'a'", "stage 1: map 'b'"]
    expected = [f"x/{i}: {name}" for i in range(11) for name in chain]
    expected += ["x: source", *(f"y: {name}" for name in chain)]
    expected += ["source", "stage 0: map 'top'", "collate", "feed"]
    assert [s.name for s in stages] == expected
    collate, feed = stages[-2:]
    assert (feed.rows, feed.bytes) == (collate.rows, collate.bytes)  # of those put ahead, too
    assert feed.seconds > 0


def test_read_ahead_keeps_to_its_budget() -> None:
    ds = Dataset({"x": np.zeros((64, 1 << 16), np.uint8)}).map(lambda row: row).repeat()
    most = 0
    with Loader(ds, 4, workers=Threads(2), ahead="2MiB") as loader:
        for _ in range(100):
            next(loader)
            most = max(most, loader.stats().ready_bytes)
    assert (1 << 18) < most <= (2 << 20) + 3 * (1 << 18)


_MODULE = """
import time
from pipeline import Dataset
def slow(x):
    time.sleep(0.001)
    return x
def make():
    return Dataset(range(100)).map(lambda x: x, name="quick").map(slow)
"""


@pytest.mark.long
def test_profile_names_the_limiting_stage(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(_MODULE)
    command = [sys.executable, "-m", "pipeline", "profile", "mine:make", "--batch", "10"]
    command += ["--seconds", "0.5"]
    done = subprocess.run(
        [*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    figures = json.loads(done.stdout)
    assert figures["limit"] == "stage 1: map 'slow'"
    assert figures["rows"] == 100
    table = subprocess.run(
        [*command, "--workers", "2"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "the limit" in table.stdout
    assert "2 workers" in table.stdout
    wrong = subprocess.run([*command[:4], "mine"], cwd=tmp_path, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_profile_of_a_module_that_is_not_there_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.__main__ import main

    assert main(["profile", "nothing_here:dataset"]) == 2
    assert "Run it from the folder that holds the module" in capsys.readouterr().err
