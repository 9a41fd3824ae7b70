"""What was counted stays counted: through close, moves, errors and other workers, and only once."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Processes, Serial, Threads
from pipeline.workers.auto import Auto
from pipeline.workers.stats import Stats
from pipeline.workers.work import Rows

ALL = [Serial(), Threads(2), Processes(2), Processes(2, parent=False)]
N = 96


def _dataset(streamed: bool = False) -> Dataset:
    ds = Dataset({"x": np.arange(N)}, seed=1).map(lambda row: row, name="same")
    return ds.filter(lambda row: row["x"] % 2 == 0, name="even", block=16) if streamed else ds


def _rows(stats: Stats) -> dict[str, int]:
    return {stage.name: stage.rows for stage in stats.stages}


def _settled(loader: Loader) -> Stats:
    # once no work is in progress
    deadline = time.monotonic() + 30
    while (stats := loader.stats()).asked:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return stats


@pytest.mark.parametrize("workers", ALL, ids=str)
@pytest.mark.parametrize("streamed", [False, True])
def test_close_keeps_every_figure(workers: Any, streamed: bool) -> None:
    with Loader(_dataset(streamed), 8, workers=workers) as loader:
        list(loader)
        before = _settled(loader)
    after = loader.stats()
    assert after.stages == before.stages
    assert _rows(after)["source"] == N
    assert (after.works, after.busy, after.restarts) == (
        before.works,
        before.busy,
        before.restarts,
    )
    assert bool(after.occupancy) == bool(after.workers)
    assert loader.stats() == after, "the clock stands while it is closed"
    loader.close()
    assert loader.stats() == after
    list(loader)  # other workers
    assert _rows(_settled(loader)) == {name: 2 * rows for name, rows in _rows(before).items()}
    loader.close()


def _closed(loader: Loader) -> None:
    loader.close()


def _sought(loader: Loader) -> None:
    loader.seek(3)


def _restored(loader: Loader) -> None:
    loader.load_state_dict(loader.state_dict())


def _skipped(loader: Loader) -> None:
    loader.skip(range(4, 6))


def _begun(loader: Loader) -> None:
    loader.start()


def _ended(loader: Loader) -> None:
    for _ in loader:
        pass


@pytest.mark.parametrize("workers", [Threads(2), Processes(2)], ids=str)
@pytest.mark.parametrize(
    "event", [_closed, _sought, _restored, _skipped, _begun, _ended], ids=lambda f: f.__name__
)
def test_nothing_that_happens_in_between_lowers_a_figure(
    workers: Any, event: Callable[[Loader], None]
) -> None:
    with Loader(_dataset().repeat(8), 8, workers=workers) as loader:
        for _ in range(2):
            next(loader)
        before = _rows(loader.stats())
        event(loader)
        between = _rows(loader.stats())
        next(loader)
        after = _rows(_settled(loader))
    assert all(before[name] <= between[name] <= after[name] for name in before)
    assert after["collate"] > before["collate"]
    assert _rows(loader.stats())["source"] >= after["source"]


@pytest.mark.parametrize("workers", ALL, ids=str)
def test_works_that_fail_are_counted_as_far_as_they_came(workers: Any) -> None:
    def refuse(row: Any) -> Any:
        if row["x"] == 5:
            raise ValueError("five")
        return row

    with Loader(_dataset().map(refuse, name="refuse"), 8, workers=workers) as loader:
        for tries in (1, 2):
            with pytest.raises(ValueError, match="five"):
                next(loader)
            assert _rows(loader.stats())["source"] >= 8 * tries
    assert _rows(loader.stats())["source"] >= 16


def test_a_work_that_ends_during_close_is_counted() -> None:
    begun = threading.Event()
    queue: list[Any] = []

    def hold(row: Any) -> Any:
        begun.set()
        while queue[0].broken is None:  # until `close` has ended the queue
            time.sleep(0.001)
        return row

    top = Dataset(range(8)).map(hold).top
    executor = Threads(1).open(top, ahead=1 << 20, stack=True)
    queue.append(executor._queue)
    executor.submit(Rows(np.arange(4)))
    assert begun.wait(30)
    executor.close()
    assert executor.stats().stages["source"].rows == 4  # pyright: ignore[reportOptionalSubscript]


@pytest.mark.parametrize("workers", [Threads(1), Processes(1), Processes(1, parent=False)], ids=str)
def test_a_work_is_counted_before_its_result_can_be_fetched(workers: Any) -> None:
    told = list[tuple[int, str]]()
    submitted: dict[int, Any] = {}
    executor = workers.open(_dataset().top, ahead=1 << 20, stack=True)
    lock = threading.Lock()

    def watch(worked: Any) -> None:
        with lock:
            told.append((worked.number, submitted[worked.number].state))

    executor.watch = watch
    for _ in range(2):  # numbers go on, with other workers
        for start in range(0, 32, 8):
            with lock:
                future = executor.submit(Rows(np.arange(start, start + 8)))
                submitted[future.number] = future
        for future in submitted.values():
            if future.state != "fetched":
                future.result()
        executor.close()
    assert sorted(told) == [(number, "asked") for number in range(8)]
    assert executor.stats().stages["source"].rows == 64


def test_whoever_auto_tries_and_leaves_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.workers import auto

    monkeypatch.setattr(auto, "LEAST", 0.0)
    monkeypatch.setattr(auto, "WORKS", 2)
    monkeypatch.setattr(auto, "_cores", lambda: 2)
    ds = Dataset({"x": np.arange(1 << 12)}).shuffle()
    executor = Auto().open(ds.top, ahead=1 << 20, stack=True)
    rows, busy, works, counts = 0, 0.0, 0, Counter[str]()
    while not executor.stats().choice:
        executor.submit(Rows(np.arange(16))).result()
        rows += 16
        stats = executor.stats()
        found = stats.stages["source"].rows if stats.stages else 0
        assert found == rows
        assert stats.busy >= busy
        assert stats.works >= works
        busy, works = stats.busy, stats.works
        counts[str(executor._workers)] += 1
    assert len(counts) > 1
    executor.close()
    assert executor.stats().stages["source"].rows == rows  # pyright: ignore[reportOptionalSubscript]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_counts_its_own_work_alone() -> None:
    with Loader(_dataset(), 8, workers=Threads(1)) as loader:
        next(loader)
        child = os.fork()
        if not child:
            empty = not loader.stats().batches and _rows(loader.stats()) == {"collate": 0}
            next(loader)
            own = loader.stats().batches == 1 and _rows(loader.stats())["source"] >= 8
            os._exit(not (empty and own))
        assert os.waitpid(child, 0)[1] == 0
        assert loader.stats().batches == 1
