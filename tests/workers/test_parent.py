"""The thread that waits helps: it evaluates what no worker has begun, and nothing else."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Processes, Threads
from pipeline.block import Block
from pipeline.errors import WorkerError
from pipeline.workers.queue import Queue
from pipeline.workers.work import Rows, Work


def _until(held: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not held():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _pids(n: int = 4096) -> Dataset:
    return Dataset(range(n)).map(lambda x: {"x": x, "pid": os.getpid()})


def _begun(loader: Loader) -> int:
    # works that workers have in their hands
    crew: Any = getattr(loader._executor, "_crew", None)
    return sum(worker.at is not None for worker in crew._workers.copy().values()) if crew else 0


def test_the_first_batch_comes_from_this_process_and_later_ones_from_workers() -> None:
    with Loader(_pids().repeat(), 8, workers=Processes(1)) as loader:
        assert set(next(loader)["pid"]) == {os.getpid()}
        _until(lambda: set(next(loader)["pid"]) != {os.getpid()})
    with Loader(_pids(), 8, workers=Processes(1, parent=False)) as loader:
        assert all(os.getpid() not in batch["pid"] for batch in loader)


def test_a_seek_does_not_wait_for_busy_workers(tmp_path: Path) -> None:
    here, hold = os.getpid(), tmp_path / "hold"
    hold.touch()

    def f(x: int) -> int:
        while os.getpid() != here and hold.exists():
            time.sleep(0.001)
        return x

    with Loader(Dataset(range(400)).map(f), 4, workers=2, start=True) as loader:
        _until(lambda: _begun(loader) == 2)
        state = loader.state_dict()
        for step in (50, 70, 20):  # what lies in the socket of the busy workers is taken back
            loader.seek(step)
            assert [int(next(loader)[0]) for _ in range(5)] == list(
                range(4 * step, 4 * step + 20, 4)
            )
        hold.unlink()
        loader.load_state_dict(state)
        assert np.concatenate(list(loader)).tolist() == list(range(400))


def test_it_never_takes_over_what_a_worker_died_of() -> None:
    here = os.getpid()

    def f(x: int) -> int:
        if x == 21 and os.getpid() != here:
            os._exit(3)
        return x

    with Loader(Dataset(range(40)).map(f), 4, workers=Processes(2), start=True) as loader:
        crew: Any = getattr(loader._executor, "_crew")  # noqa: B009
        _until(lambda: crew.restarts > 0)
        with pytest.raises(WorkerError, match="exited with code 3"):
            list(loader)
        assert loader.step == 5


class _Recorder:
    def __init__(self) -> None:
        self.seen: list[Work] = []

    def may(self, work: Work) -> bool:
        return True

    def evaluate(self, work: Work) -> Block:
        self.seen.append(work)
        raise KeyError("mine")


def test_it_claims_only_what_nobody_has_begun() -> None:
    helper = _Recorder()
    queue = Queue(workers=1, ahead=100, helper=helper)
    first, second = (queue.submit(Rows(np.arange(1)), urgent=False) for _ in range(2))
    with queue.lock:
        assert queue.await_pull() is first
    with pytest.raises(KeyError, match="mine"):
        second.result()
    assert helper.seen == [second.work]
    queue.put_back([first])  # its worker has died: others redo it, the thread that waits does not
    threading.Timer(0.05, lambda: queue.break_off(WorkerError("ended"))).start()
    with pytest.raises(WorkerError, match="ended"):
        first.result()
    assert helper.seen == [second.work]


def test_stages_that_seed_global_generators_are_left_to_workers_in_another_thread() -> None:
    def f(x: int, rng: Any) -> dict[str, Any]:
        return {"r": np.random.random(), "pid": os.getpid()}  # noqa: NPY002

    ds = Dataset(range(8), seed=1).random_map(f, seed_globals=True)
    plain = next(Loader(ds, 4))["r"].tolist()
    with Loader(ds, 4, workers=Processes(1)) as loader:
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.append(next(loader)))
        thread.start()
        thread.join()
        assert got[0]["r"].tolist() == plain
        assert os.getpid() not in got[0]["pid"]


@pytest.mark.parametrize("workers", [2, Threads(2)], ids=str)
def test_start_begins_reading_ahead_before_a_batch_is_asked_for(workers: Any) -> None:
    ds = Dataset(range(64)).map(lambda x: x + 1)
    with Loader(ds, 4, workers=workers) as loader:
        loader.seek(3)
        loader.start()
        _until(lambda: loader._executor.stats().ready > 0)
        assert next(loader).tolist() == [13, 14, 15, 16]
    with Loader(ds, 4, workers=workers, start=True) as loader:
        _until(lambda: loader._executor.stats().ready > 0)
        loader.seek(5)  # and anew after each move
        done = loader._executor.stats().works
        _until(lambda: loader._executor.stats().works > done)
        assert next(loader).tolist() == [21, 22, 23, 24]
    loader = Loader(ds, 4, start=True)
    loader.start()
    assert next(loader).tolist() == [1, 2, 3, 4]


def test_results_of_the_helping_thread_are_the_callers_own() -> None:
    table = np.arange(8)
    ds = Dataset(range(8)).map(lambda x: table[: len(x)], batched=True)
    with Loader(ds, 4, workers=Processes(1)) as loader:
        next(loader)[:] = -1
    assert table.tolist() == list(range(8))
