"""Forks of the process and interrupts at any moment: the loader goes on, or says so at once."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, Processes, Threads
from pipeline.block import Block, Columns, Origin
from pipeline.errors import PipelineError
from pipeline.workers.queue import Queue
from pipeline.workers.work import Rows

_FORK = """
import gc, os, sys
from pipeline import Dataset, Loader, Processes, Threads
ds = Dataset(range(400)).map(lambda x: x * x)
if {counted}:
    ds = ds.filter(lambda x: x % 2 == 0)
plain = [b.tolist() for b in Loader(ds, 4)]
loader = Loader(ds, 4, workers={workers}, ahead="1MiB")
got = [next(loader).tolist() for _ in range(5)]
pid = os.fork()
rest = [b.tolist() for b in loader]
assert got + rest == plain, (pid, rest[:3])
loader.seek(7)
assert next(loader).tolist() == plain[7]
loader.close()
del loader
gc.collect()
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print("held")
"""


@pytest.mark.parametrize("workers", ["Threads(2)", "Processes(2, parent=False)"])
@pytest.mark.parametrize("counted", [False, True])
def test_a_forked_child_of_a_live_loader_has_workers_of_its_own(
    workers: str, counted: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORK.format(workers=workers, counted=counted)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.stdout, done.stderr) == ("held\n", "")


def test_closing_is_quick_though_a_fork_holds_the_sockets() -> None:
    loader = Loader(Dataset(range(40)), 4, workers=Processes(2, parent=False))
    next(loader)
    pid = os.fork()
    if pid == 0:
        time.sleep(20)
        os._exit(0)
    try:
        pool: Any = getattr(loader._executor, "_crew")  # noqa: B009
        loader.close()
        assert pool._forkserver.returncode == 0  # not killed after its patience
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


_INTERRUPT = """
import os, signal, sys, threading, time
import numpy as np
from pipeline import Dataset, Loader, Processes, Threads
ds = Dataset(range(100_000)).map(lambda x: x + 1).repeat()
loader = Loader(ds, 8, workers={workers}, ahead="64KiB")
next(loader)
stop = threading.Event()
def bother():
    rng = np.random.default_rng(0)
    while not stop.is_set():
        time.sleep(float(rng.random()) * 0.003)
        os.kill(os.getpid(), signal.SIGINT)
armed = False
def interrupt(*_):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt
signal.signal(signal.SIGINT, interrupt)
deadline = time.monotonic() + 4
thread = threading.Thread(target=bother)
thread.start()
interrupts = 0
while time.monotonic() < deadline:
    try:
        armed = True
        while time.monotonic() < deadline:
            next(loader)
        armed = False
    except KeyboardInterrupt:
        interrupts += 1
stop.set()
thread.join()
time.sleep(0.05)
step = loader.step
assert next(loader).tolist() == [(8 * step + i) % 100_000 + 1 for i in range(8)]
loader.close()
print("held", interrupts > 20)
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "Threads(2)", "Processes(2, parent=False)"])
def test_interrupts_at_any_moment_break_no_lock(workers: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPT.format(workers=workers)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.stdout, done.stderr) == ("held True\n", "")


def _block() -> Block:
    return Block(Columns({"x": np.arange(1)}), Origin.of_records(0, np.arange(1), np.arange(1)))


def test_many_threads_may_wait_for_one_result() -> None:
    queue = Queue(workers=1, ahead=100)
    future = queue.submit(Rows(np.arange(1)), urgent=True)
    got: list[Block] = []
    threads = [threading.Thread(target=lambda: got.append(future.result())) for _ in range(8)]
    for thread in threads:
        thread.start()
    with queue.lock:
        assert queue.pull() is future
    queue.finish(future, _block, 1, 0.0)
    for thread in threads:
        thread.join(20)
    assert len(got) == 8


@pytest.mark.parametrize("workers", [Threads(2), Processes(2, parent=False)], ids=str)
def test_who_waits_hears_that_the_loader_was_closed(workers: Any) -> None:
    loader = Loader(Dataset(range(4)).map(lambda x: (time.sleep(0.5), x)[1]), 2, workers=workers)
    closer = threading.Timer(0.2, loader._executor.close)
    closer.start()
    with pytest.raises(PipelineError, match="closed while it waited"):
        next(loader)
    closer.join()


@pytest.mark.parametrize("workers", [Threads(1), Processes(1, parent=False)], ids=str)
def test_an_interrupt_as_workers_start_leaves_none_and_the_loader_goes_on(
    workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ends = weakref.finalize, list[Any]()

    def interrupted(owner: Any, *call: Any) -> Any:
        ends.append(real(owner, *call))
        monkeypatch.undo()
        raise KeyboardInterrupt

    loader = Loader(Dataset(range(64)).map(lambda x: x + 1), 8, workers=workers)
    monkeypatch.setattr(weakref, "finalize", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(loader)
    loader.close()
    assert next(loader).tolist() == list(range(1, 9))
    loader.close()
    del loader
    gc.collect()  # the interrupt's traceback holds it
    assert [end.alive for end in ends] == [False]  # the first workers ended with the loader


def test_an_interrupt_where_code_has_no_line_keeps_its_type() -> None:
    def stop(x: int) -> int:
        raise KeyboardInterrupt

    stop.__code__ = stop.__code__.replace(co_linetable=b"")  # as some instructions of 3.12
    loader = Loader(Dataset(range(8)).map(stop), 4)
    with pytest.raises(KeyboardInterrupt) as caught:
        next(loader)
    assert any("record 0" in note for note in caught.value.__notes__)
