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
        def _decode(self, chunks):
            asked.append(len(chunks))
            return super()._decode(chunks)

    source = Counting(tmp_path / "a.parquet")
    monkeypatch.setattr(chunks, "FETCH", 3 * source._weigh([0])[0])
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
