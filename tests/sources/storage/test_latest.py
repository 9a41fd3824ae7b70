"""A bounded number of values is kept: the least recently used go, and a fork starts anew."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from pipeline.sources.storage.latest import Latest


def test_the_least_recently_used_goes() -> None:
    made: list[int] = []
    latest = Latest[int, int](most=2)
    for key in (0, 1, 0, 2, 0, 1):
        assert latest.get(key, lambda k: made.append(k) or k) == key
    assert made == [0, 1, 2, 1]
    latest.drop(1)
    assert not latest.holds(1)
    assert latest.holds(0)
    latest.forget()
    assert not latest.holds(0)


def test_threads_make_a_value_once() -> None:
    made: list[int] = []
    latest, start = Latest[int, int](), threading.Barrier(4)

    def ask(_: int) -> int:
        start.wait()
        return latest.get(7, lambda k: made.append(k) or k)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [7] * 4
    assert made == [7]


FORKED = """
import os, signal
from pipeline.sources.storage.latest import Latest

latest = Latest[int, int]()

def make(_):
    child = os.fork()
    if child == 0:  # its copy of the lock is held, by a thread that it does not have
        signal.alarm(20)
        os._exit(latest.get(1, lambda k: k))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

assert latest.get(0, make) == 1
"""


def test_a_lock_held_as_a_process_forks_does_not_stop_the_child() -> None:
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)
