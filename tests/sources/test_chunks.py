"""What chunked sources share: each chunk made once, bounded memory and threads, and the warning."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources import chunks
from pipeline.sources.chunks import Cores
from pipeline.sources.parquet import ParquetSource
from pipeline.sources.storage.kept import Kept


def kept(limit=10, dropped=lambda key: None):
    return Kept[int](limit, lambda value: 1, dropped)


def test_the_least_recently_used_goes_first_and_the_last_one_stays():
    gone: list[int] = []
    cache = kept(2, gone.append)
    cache.get([1, 2], lambda keys: keys)
    cache.get([1, 3], lambda keys: keys)
    assert gone == [2]
    none = kept(0)
    none.get([1], lambda keys: keys)
    assert 1 in none
    assert none.bytes == 1


def test_who_waits_is_served_though_the_value_is_dropped_at_once():
    cache = kept(0)
    making, go = threading.Event(), threading.Event()

    def slowly(keys):
        making.set()
        go.wait()
        return [key * 10 for key in keys]

    def never(keys):
        raise AssertionError(f"{keys} are being made already")

    results: list[list[int]] = []
    first = threading.Thread(target=lambda: results.append(cache.get([1, 2, 3], slowly)))
    first.start()
    making.wait()
    second = threading.Thread(target=lambda: results.append(cache.get([3, 1], never)))
    second.start()
    go.set()
    first.join()
    second.join()
    assert sorted(results) == [[10, 20, 30], [30, 10]]


def test_after_a_failure_another_thread_tries_itself():
    cache = kept()
    making, go = threading.Event(), threading.Event()

    def fails(keys):
        making.set()
        go.wait()
        raise OSError("no network")

    errors: list[Exception] = []

    def first():
        try:
            cache.get([1], fails)
        except OSError as e:
            errors.append(e)

    results: list[list[int]] = []
    threads = [threading.Thread(target=first)]
    threads[0].start()
    making.wait()
    threads.append(threading.Thread(target=lambda: results.append(cache.get([1], lambda k: k))))
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join()
    assert len(errors) == 1
    assert results == [[1]]


def test_threads_that_want_each_others_chunks_do_not_lock():
    cache = kept(0)
    orders = [np.random.default_rng(i).permutation(12).tolist() for i in range(8)]
    go = threading.Barrier(len(orders))
    wrong: list[object] = []

    def work(order):
        go.wait()
        for _ in range(200):
            if cache.get(order, lambda keys: [k * 2 for k in keys]) != [k * 2 for k in order]:
                wrong.append(order)

    threads = [threading.Thread(target=work, args=[order]) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_cores_are_bounded_over_all_callers(monkeypatch):
    monkeypatch.setattr(pa, "cpu_count", lambda: 3)
    cores, lock, running, most = Cores(), threading.Lock(), 0, 0

    def work(i):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait(30)
        with lock:
            running -= 1
        return i

    barrier = threading.Barrier(3)  # so many must work together, or it breaks
    assert cores.map(work, range(3)) == [0, 1, 2]
    assert most == 3
    names: set[str] = set()
    monkeypatch.setattr(pa, "cpu_count", lambda: 1)
    one = Cores()
    one.map(lambda i: names.add(threading.current_thread().name), range(5))
    assert names == {threading.current_thread().name}
    assert not [t for t in threading.enumerate() if "lockstep-decode" in t.name]


def test_a_call_holds_no_more_of_the_files_than_it_should(tmp_path, monkeypatch):
    pq.write_table(pa.table({"i": np.arange(1000)}), tmp_path / "a.parquet", row_group_size=100)
    asked: list[int] = []

    class Counting(ParquetSource):
        def _decode(self, groups):
            asked.append(len(groups))
            return super()._decode(groups)

    source = Counting(tmp_path / "a.parquet")
    monkeypatch.setattr(chunks, "FETCH", 3 * source._weigh(0))
    order = np.random.default_rng(0).permutation(1000)
    assert source.read(order).tree["i"].tolist() == order.tolist()
    assert asked == [3, 3, 3, 1]


@pytest.fixture
def rows_of_100(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"i": np.arange(50_000)}), path, row_group_size=1000)
    return path


def test_a_full_shuffle_that_wastes_a_hundredfold_says_so_once(rows_of_100, caplog):
    source = ParquetSource(rows_of_100, cache_bytes=30_000)
    with caplog.at_level(logging.WARNING, "pipeline"):
        for i in np.random.default_rng(0).permutation(50_000)[:200].reshape(-1, 4):
            source.read(i)
    said = [r.message for r in caplog.records]
    assert len(said) == 1
    assert said[0].startswith("16,000 rows in 16 chunks of ")
    assert "were decoded for 1" in said[0]
    assert ".shuffle(chunks=16)" in said[0]
    assert "about 1,000 rows" in said[0]


@pytest.mark.parametrize("batch", [1, 64])
def test_orders_that_use_up_their_groups_are_not_told_off(rows_of_100, caplog, batch):
    groups = np.arange(40_000).reshape(10, 4000)
    rng = np.random.default_rng(0)
    windowed = np.concatenate([rng.permutation(group) for group in groups[:4]])
    source = ParquetSource(rows_of_100, cache_bytes=60_000)
    with caplog.at_level(logging.WARNING, "pipeline"):
        for order in (np.arange(20_000 if batch > 1 else 2000), windowed[: 4000 * batch]):
            for start in range(0, len(order), batch):
                source.read(order[start : start + batch])
        ParquetSource(rows_of_100).read(rng.permutation(50_000))
        whole = ParquetSource(rows_of_100)
        for i in rng.permutation(50_000)[:300]:  # all groups fit
            whole.read(np.array([i]))
    assert not caplog.records
