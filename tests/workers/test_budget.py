"""What waits to be fetched stays within the budget, also where rows become larger as they come."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from pipeline import Dataset
from pipeline.block import Block, Columns, Origin
from pipeline.workers.queue import Future, Queue
from pipeline.workers.serial import SerialExecutor
from pipeline.workers.work import Rows

LARGE = 1 << 16  # bytes of a row from the 4096th on


def _block() -> Block:
    return Block(Columns({"x": np.arange(1)}), Origin.of_records(0, np.arange(1), np.arange(1)))


def _full_queue() -> tuple[Queue, list[Future]]:
    """A queue of three futures; the second's result is there, and is more than the budget."""
    queue = Queue(workers=1, ahead=100)
    futures = [queue.submit(Rows(np.array([i])), urgent=False) for i in range(3)]
    with queue.lock:
        assert [queue.pull(), queue.pull()] == futures[:2]
    queue.finish(futures[1], _block, 101, 0.0)
    return queue, futures


def test_a_full_budget_holds_work_back_until_it_is_fetched() -> None:
    queue, futures = _full_queue()
    with queue.lock:
        assert queue.pull() is None
    queue.fetch(futures[1])
    with queue.lock:
        assert queue.pull() is futures[2]


def test_a_full_budget_holds_work_back_until_it_is_cancelled() -> None:
    queue, futures = _full_queue()
    told = threading.Event()
    queue.more = told.set
    with queue.lock:
        assert queue.pull() is None
    queue.cancel(futures[1])
    assert told.is_set()
    with queue.lock:
        assert queue.pull() is futures[2]


def test_work_that_somebody_waits_for_is_done_over_a_full_budget() -> None:
    queue, futures = _full_queue()
    with queue.lock:
        assert queue.pull() is None
    told = threading.Event()
    queue.more = told.set
    waiting = threading.Thread(target=queue.fetch, args=[futures[2]])
    waiting.start()
    assert told.wait(20)
    with queue.lock:
        assert queue.pull() is futures[2]
    queue.finish(futures[2], _block, 1, 0.0)
    waiting.join(20)
    assert not waiting.is_alive()


def _grown(rows: Any) -> Any:
    size = LARGE // 8 if rows["x"][0] >= 4096 else 1
    return {"x": np.repeat(rows["x"][:, None], size, axis=1)}


def test_groups_shrink_as_rows_become_larger() -> None:
    ds = Dataset({"x": np.arange(8192)}).map(_grown, batched=True)
    executor = SerialExecutor(ds.top, 1 << 20, False)
    for first in range(0, 4096, 1024):
        executor.evaluate(Rows(np.arange(first, first + 1024)))
    executor.evaluate(Rows(np.arange(4096, 4100)))
    assert executor.group(4) * 4 * LARGE <= 1 << 20
