"""A loader used by several threads, in a forked child, and interrupted anywhere."""

from __future__ import annotations

import _thread
import os
import pickle
import sys
import threading
import time
from itertools import islice
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Processes, Threads
from pipeline.batches.indexed import IndexedStream
from pipeline.debug.digest import digest

DS = Dataset({"x": np.arange(400)}, seed=1).shuffle()
COUNTED = DS.filter(lambda row: bool(row["x"] % 5), block=16)


@pytest.mark.parametrize("ds", [DS, COUNTED])
@pytest.mark.parametrize("workers", [0, Threads(2)])
def test_threads_share_a_loader_and_get_each_batch_once(ds: Dataset, workers: Any) -> None:
    expected = sorted(b["x"].tobytes() for b in Loader(ds, 4))
    found: list[bytes] = []
    states: list[Any] = []
    with Loader(ds, 4, workers=workers) as loader:

        def draw() -> None:
            for batch in loader:
                found.append(batch["x"].tobytes())
                states.append(loader.state_dict())
                _ = loader.step, loader.where(0), loader.stats()

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            threads = [threading.Thread(target=draw) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert loader.epoch >= 1
    # a thread whose loop began after the others had ended the pass reads the next one
    assert sorted(found)[: len(expected)] == expected or set(expected) <= set(found)
    assert len(found) == loader.step
    assert all(0 < state["step"] <= len(found) for state in states)


def test_a_question_waits_for_one_batch_and_not_for_the_end_of_a_loop() -> None:
    def slow(row: Any) -> Any:
        time.sleep(0.005)
        return row

    loader, begun, taken = Loader(DS.map(slow), 1), threading.Event(), list[Any]()

    def draw() -> None:
        for batch in islice(loader, 100):
            taken.append(batch)
            begun.set()

    thread = threading.Thread(target=draw)
    thread.start()
    begun.wait(10)
    waited: list[int] = []
    for question in (loader.state_dict, lambda: loader.step, lambda: loader[3]):
        before = len(taken)
        question()
        waited.append(len(taken) - before)
    thread.join(30)
    assert max(waited) <= 30  # of 100; a busy machine may let some pass before the question


def test_closing_ends_a_thread_that_waits() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(row: Any) -> Any:
        begun.set()
        go_on.wait(10)
        return row

    loader = Loader(DS.map(slow), 4, workers=Threads(1))
    caught: list[BaseException] = []

    def draw() -> None:
        try:
            next(loader)
        except Exception as e:
            caught.append(e)

    thread = threading.Thread(target=draw)
    thread.start()
    begun.wait(10)
    closing = threading.Thread(target=loader.close)
    closing.start()
    thread.join(10)
    go_on.set()
    closing.join(10)
    assert not thread.is_alive()
    assert "closed while it waited" in str(caught[0])
    assert loader.step == 0


# ---- interrupts


def drawn(loader: Loader, at: int) -> Any:
    """The next batch; None if the interrupt came that is due at the n-th call of a function."""
    left = at

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal left
        left -= event in ("call", "c_return")
        if not left:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        return next(loader)
    except KeyboardInterrupt:
        return None
    finally:
        sys.setprofile(None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("ds", [DS, COUNTED])
def test_an_interrupt_anywhere_loses_and_repeats_nothing(ds: Dataset) -> None:
    whole = [digest(b) for b in Loader(ds, 4)]
    loader = Loader(ds, 4)
    loader.skip(range(3, 5))
    del whole[3:5]
    got: list[str] = []
    at = came = 0
    while len(got) < 12:
        at += 1 + at // 40
        batch = drawn(loader, at)
        came += batch is None
        if batch is not None:
            got.append(digest(batch))
            at = 0
    assert got == whole[:12]
    assert came > 100
    thread = threading.Thread(target=lambda: got.append(digest(next(loader))))
    thread.start()
    thread.join(10)
    assert got == whole[:13]


def test_a_real_interrupt_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [digest(b) for b in Loader(DS, 4)]
    evaluated = IndexedStream.take

    def take(self: IndexedStream, cursor: Any) -> Any:
        if armed:
            armed.pop()
            _thread.interrupt_main()
        return evaluated(self, cursor)

    armed = [1]
    monkeypatch.setattr(IndexedStream, "take", take)
    with Loader(DS, 4, workers=Threads(2)) as loader:
        got, came = list[str](), 0
        for _ in range(9):
            armed.append(1)
            try:
                batch = next(loader)  # Python drops an interrupt that arrives in a finalizer
            except KeyboardInterrupt:
                armed.clear()
                batch, came = next(loader), came + 1
            armed.clear()
            got.append(digest(batch))
        assert got == whole[:9]
        assert came > 5


# ---- forks


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("workers", [0, Threads(2), Processes(1, parent=False)])
@pytest.mark.parametrize("counted", [False, True])
def test_a_forked_child_goes_on_with_workers_of_its_own(workers: Any, counted: bool) -> None:
    ds = COUNTED if counted else DS
    whole = [digest(b) for b in Loader(ds, 4)]
    with Loader(ds, 4, workers=workers) as loader:
        assert [digest(next(loader)) for _ in range(3)] == whole[:3]
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                found = [digest(next(loader)) for _ in range(3)]
                loader.close()
                os.write(writer, " ".join(found).encode())
            finally:
                os._exit(0)
        os.close(writer)
        assert [digest(next(loader)) for _ in range(3)] == whole[3:6]
        with os.fdopen(reader) as pipe:
            assert pipe.read().split() == whole[3:6]
        os.waitpid(child, 0)
        assert digest(next(loader)) == whole[6]


def test_a_pickled_loader_stands_where_it_stood() -> None:
    loader = Loader(Dataset(range(20)), 4)
    next(loader)
    loader.skip(range(2, 3), records=7)
    other = pickle.loads(pickle.dumps(loader))
    assert other.state_dict() == loader.state_dict()
    assert [b.tolist() for b in other] == [b.tolist() for b in loader]
