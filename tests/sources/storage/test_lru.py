"""The LRU cache: values are made once and at the same time; a bounded number of them is kept."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.sources.storage import lru
from pipeline.sources.storage.lru import LRU, OpenFiles, most_open


def cache_of(limit: int = 10, dropped: Any = lambda key: None) -> LRU[int, int]:
    return LRU[int, int](limit, dropped=dropped)


def test_the_least_recently_used_goes_first_and_the_last_one_stays() -> None:
    gone: list[int] = []
    cache = cache_of(2, gone.append)
    cache.get_many([1, 2], lambda keys: keys)
    cache.get_many([1, 3], lambda keys: keys)
    assert gone == [2]
    none = cache_of(0)
    none.get_many([1], lambda keys: keys)
    assert 1 in none
    assert none.weight == 1


def test_who_waits_is_served_though_the_value_is_dropped_at_once() -> None:
    cache = cache_of(0)
    making, go = threading.Event(), threading.Event()

    def slowly(keys: list[int]) -> list[int]:
        making.set()
        go.wait()
        return [key * 10 for key in keys]

    def never(keys: list[int]) -> list[int]:
        raise AssertionError(f"{keys} are being made already")

    results: list[list[int]] = []
    first = threading.Thread(target=lambda: results.append(cache.get_many([1, 2, 3], slowly)))
    first.start()
    making.wait()
    second = threading.Thread(target=lambda: results.append(cache.get_many([3, 1], never)))
    second.start()
    go.set()
    first.join()
    second.join()
    assert sorted(results) == [[10, 20, 30], [30, 10]]


def test_after_a_failure_another_thread_tries_itself() -> None:
    cache = cache_of()
    making, go = threading.Event(), threading.Event()

    def fails(keys: list[int]) -> list[int]:
        making.set()
        go.wait()
        raise OSError("no network")

    errors: list[Exception] = []

    def first() -> None:
        try:
            cache.get_many([1], fails)
        except OSError as e:
            errors.append(e)

    results: list[list[int]] = []
    threads = [threading.Thread(target=first)]
    threads[0].start()
    making.wait()
    threads.append(
        threading.Thread(target=lambda: results.append(cache.get_many([1], lambda k: k)))
    )
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join()
    assert len(errors) == 1
    assert results == [[1]]


def test_threads_that_want_each_others_chunks_do_not_lock() -> None:
    cache = cache_of(0)
    orders = [np.random.default_rng(i).permutation(12).tolist() for i in range(8)]
    go = threading.Barrier(len(orders))
    wrong: list[object] = []

    def work(order: list[int]) -> None:
        go.wait()
        for _ in range(200):
            if cache.get_many(order, lambda keys: [k * 2 for k in keys]) != [k * 2 for k in order]:
                wrong.append(order)

    threads = [threading.Thread(target=work, args=[order]) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_the_least_recently_used_is_dropped() -> None:
    made: list[int] = []
    cache = LRU[int, int](2)
    for key in (0, 1, 0, 2, 0, 1):
        assert cache.get(key, lambda k: made.append(k) or k) == key
    assert made == [0, 1, 2, 1]
    cache.drop(1)
    assert 1 not in cache
    assert 0 in cache
    cache.clear()
    assert 0 not in cache
    assert cache.weight == 0


def test_weights_are_kept_within_the_limit() -> None:
    cache = LRU[int, bytes](100, weigh=len)
    for key in range(50):
        cache.put(key % 7, bytes(key))
        assert cache.weight == sum(len(cache.peek(k) or b"") for k in range(7)) <= 100
    cache.put(3, bytes(500))  # the newest stays, whatever it weighs
    assert (cache.weight, 3 in cache, 4 in cache) == (500, True, False)


def test_threads_make_a_value_once() -> None:
    made: list[int] = []
    cache, start = LRU[int, int](), threading.Barrier(4)

    def ask(_: int) -> int:
        start.wait()
        return cache.get(7, lambda k: made.append(k) or k)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [7] * 4
    assert made == [7]


def test_eight_threads_open_eight_shards_at_once(tmp_path: Path) -> None:
    """Each opening waits until all eight are under way: one after another would never end."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.sources import ParquetSource

    together = threading.Barrier(8)

    class Slow(ParquetSource):
        def _open(self, files: list[int]) -> Any:
            together.wait(30)
            return super()._open(files)

    for i in range(8):
        pq.write_table(pa.table({"a": [i]}), tmp_path / f"{i}.parquet")
    source = Slow(str(tmp_path / "*.parquet"))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: source.read(np.array([i])).tree["a"].tolist(), range(8)))
    assert found == [[i] for i in range(8)]


FORKED = """
import os, signal
from pipeline.sources.storage.lru import LRU, OpenFiles

for cache in (LRU[int, int](), OpenFiles[int, int]()):
    def make(_):
        child = os.fork()
        if child == 0:  # its flight is of a thread that it does not have
            signal.alarm(20)
            os._exit(cache.get(0, lambda k: 1))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert cache.get(0, make) == 1
"""


def test_a_value_that_is_made_as_a_process_forks_does_not_stop_the_child() -> None:
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)


class Handle:
    """An open file."""

    def __init__(self, path: str) -> None:
        weakref.finalize(self, os.close, os.open(path, os.O_RDONLY))


def open_now(path: str) -> int:
    """Descriptors on `path`: others come and go as other tests' garbage is collected."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(f"/proc/self/fd/{number}") == path
    return count


def test_open_files_are_bounded_over_the_process(monkeypatch: Any, tmp_path: Path) -> None:
    path = str(tmp_path.resolve() / "file")
    Path(path).touch()
    monkeypatch.setattr(lru, "most_open", lambda: 1)  # what others hold makes way
    one = OpenFiles[int, Handle]()
    one.get(0, lambda _: Handle(path))
    one.clear()
    monkeypatch.setattr(lru, "most_open", lambda: 10)
    owners = [OpenFiles[int, Handle]() for _ in range(5)]
    for i in range(100):
        owners[i % 5].get(i, lambda _: Handle(path))
    assert open_now(path) == 10
    assert 99 in owners[4]
    assert 0 not in owners[0]
    owners[0].clear()
    owners = owners[1:]
    del owners[1:]
    gc.collect()
    assert open_now(path) == 2
    for i in range(30):  # what is gone takes no place
        owners[0].get(i, lambda _: Handle(path))
    assert open_now(path) == 10


def test_the_bound_follows_the_limit_of_the_process() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert most_open() == 64
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
