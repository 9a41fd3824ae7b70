"""workers="auto": whoever is quickest evaluates, and the data never shows who."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader
from pipeline.workers import auto
from pipeline.workers.auto import Auto


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "LEAST", 0.0)
    monkeypatch.setattr(auto, "WATCHED", 0.0)
    monkeypatch.setattr(auto, "WORKS", 2)
    monkeypatch.setattr(auto, "_cores", lambda: 2)


def _decided(loader: Loader, got: list[Any], most: float = 60.0) -> None:
    deadline = time.monotonic() + most
    while not loader.stats().choice:
        got.append(next(loader))
        assert time.monotonic() < deadline


@pytest.mark.long
@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("counted", [False, True])
def test_batches_are_the_same_while_it_tries_and_after(counted: bool) -> None:
    ds = Dataset({"x": np.arange(1 << 12)}, seed=1).shuffle().map(lambda row: {"y": row["x"] * 2})
    ds = ds.filter(lambda row: row["y"] % 3 > 0) if counted else ds
    ds = ds.repeat()
    got: list[Any] = []
    with Loader(ds, 8, workers="auto") as loader:
        _decided(loader, got)
        tried = loader.stats().tried
        assert "Serial()" in tried
        assert any(name.startswith("Processes") for name in tried)
        got += [next(loader) for _ in range(50)]
        state, after = loader.state_dict(), next(loader)["y"].tolist()
        loader.load_state_dict(state)
        assert next(loader)["y"].tolist() == after
    plain = Loader(ds, 8)
    assert all((batch["y"] == next(plain)["y"]).all() for batch in got)


@pytest.mark.usefixtures("brief")
def test_what_cannot_be_sent_is_left_to_the_loop() -> None:
    lock = threading.Lock()

    def locked(x: int) -> int:
        with lock:
            return x + 1

    got: list[Any] = []
    with Loader(Dataset(range(1 << 16)).map(locked), 4, workers="auto") as loader:
        _decided(loader, got)
        assert loader.stats().choice == "Serial()"
    assert np.concatenate(got).tolist() == list(range(1, 4 * len(got) + 1))


def test_threads_are_tried_only_where_no_code_is_the_users_own() -> None:
    ds = Dataset({"x": np.arange(8)}).shuffle()
    for chain, held in ((ds, True), (ds.map(lambda row: row), False), (ds.repeat(), True)):
        executor = Auto().open(chain.top, ahead=1 << 20, stack=True)
        assert executor._own == held


@pytest.mark.long
def test_functions_that_wait_go_to_processes_and_a_new_pace_is_tried_anew() -> None:
    def slow(x: int) -> int:
        time.sleep(0.002)
        return x

    got: list[Any] = []
    with Loader(Dataset(range(1 << 20)).map(slow), 16, workers="auto") as loader:
        _decided(loader, got, 120)
        assert loader.stats().choice.startswith("Processes")
        assert "Chosen: Processes" in str(loader.stats())
        executor: Any = loader._executor
        executor._best *= 10  # as if the pace had fallen
        deadline = time.monotonic() + 60
        while loader.stats().choice:
            next(loader)
            assert time.monotonic() < deadline
