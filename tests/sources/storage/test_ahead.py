"""Reading ahead: in the order of need, bounded, over when nothing is wanted; it changes no row."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import Dataset, Loader, Threads
from pipeline.sources.arrow_ipc import ArrowIpcSource
from pipeline.sources.parquet import ParquetSource
from pipeline.sources.storage.ahead import Ahead


class Maker:
    """Makes chunks when told to go on."""

    def __init__(self):
        self.asked, self.go = [], threading.Event()
        self.begun = threading.Semaphore(0)

    def have(self, chunks):
        self.begun.release()
        self.go.wait(30)
        self.asked.append(chunks)
        if 13 in chunks:
            raise OSError("no network")

    def most(self, chunks):
        return 2


def runners():
    return [t for t in threading.enumerate() if t.name == "lockstep-ahead"]


def ended(ahead):
    for thread in list(ahead._runners):
        thread.join(30)
    return not runners()


def test_all_that_is_wanted_is_had_once_and_then_the_threads_end():
    maker = Maker()
    ahead = Ahead(maker.have, maker.most)
    ahead.want([5, 3, 9])
    maker.begun.acquire(timeout=30)
    ahead.want([5, 3, 9, 1])  # two are under way
    maker.go.set()
    assert ended(ahead)
    assert sorted(chunk for some in maker.asked for chunk in some) == [1, 3, 5, 9]
    assert [5, 3] in maker.asked


def test_a_failure_ends_nothing_and_what_is_not_wanted_any_more_is_not_had():
    maker = Maker()
    maker.go.set()
    ahead = Ahead(maker.have, maker.most)
    ahead.want([13, 14])
    assert ended(ahead)
    ahead.want([1])
    assert ended(ahead)
    assert maker.asked == [[13, 14], [1]]
    held = Maker()
    ahead = Ahead(held.have, held.most)
    for first in (21, 31, 41):  # one for each runner
        ahead.want([first, first + 1, 50, 51])
        assert held.begun.acquire(timeout=30)
    ahead.want([])
    held.go.set()
    assert ended(ahead)
    assert sorted(held.asked) == [[21, 22], [31, 32], [41, 42]]


@pytest.mark.long
def test_work_for_an_object_that_is_gone_is_dropped():
    maker = Maker()
    ahead, asked = Ahead(maker.have, maker.most), maker.asked
    del maker
    gc.collect()
    ahead.want([1])
    assert ended(ahead)
    assert asked == []


class Watched(ParquetSource):
    """Says who decodes which group."""

    log: list[tuple[str, int]]

    def _decode(self, chunks):
        name = threading.current_thread().name
        self.log.extend((name, group) for group in chunks)
        return super()._decode(chunks)


@pytest.fixture
def far(tmp_path, gcs):
    urls = []
    for k in range(2):
        part = {"i": np.arange(k * 2000, k * 2000 + 2000)}
        pq.write_table(pa.table(part), tmp_path / f"{k}.parquet", row_group_size=100)
        urls.append(gcs.upload(tmp_path / f"{k}.parquet"))
    source = Watched(urls, storage=gcs.storage())
    source.log = []
    return source


@pytest.mark.parametrize("workers", [0, Threads(3)])
def test_an_epoch_reads_each_group_once_some_of_them_ahead(tmp_path, far, workers):
    near = ParquetSource([tmp_path / "0.parquet", tmp_path / "1.parquet"])
    orders = (Dataset(source, seed=3).shuffle(chunks=4) for source in (far, near))
    with (
        Loader(next(orders), 50, workers=workers) as ours,
        Loader(next(orders), 50) as theirs,
    ):
        for a, b in zip(ours, theirs, strict=True):
            assert a["i"].tolist() == b["i"].tolist()
    assert sorted(group for _, group in far.log) == list(range(40))
    assert any(name == "lockstep-ahead" for name, _ in far.log)  # how many is a matter of speed
    far.close()
    assert not runners()


def test_what_is_near_or_thinly_used_is_not_read_ahead(tmp_path, far):
    pq.write_table(pa.table({"i": np.arange(9)}), tmp_path / "a.parquet")
    assert ParquetSource(tmp_path / "a.parquet").horizon == 0
    assert far.horizon == 4000
    far.ahead(np.array([], np.int64))
    far.ahead(np.r_[np.full(3960, 250), np.arange(0, 4000, 100)])  # one row of most groups
    assert ended(far._chunks._ahead)
    assert [group for _, group in far.log] == [2]
    far.ahead(np.arange(300, 700, 4))
    assert ended(far._chunks._ahead)
    assert sorted(group for _, group in far.log) == [2, 3, 4, 5, 6]


def test_no_more_is_read_ahead_than_a_quarter_of_the_cache(tmp_path, far):
    each = far._weigh([0])[0]
    small = Watched(far._files.paths, storage=far._files.storage, cache_bytes=4 * 5 * each + 40)
    small.log = []
    small._chunks.ahead(np.arange(4000))
    assert ended(small._chunks._ahead)
    assert sorted(group for _, group in small.log) == [0, 1, 2, 3, 4]


def test_record_batches_are_read_ahead_too(tmp_path, gcs):
    table = pa.table({"i": np.arange(2000)})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    source = ArrowIpcSource(gcs.upload(tmp_path / "a.arrow"), storage=gcs.storage())
    source.ahead(np.arange(1000))
    assert ended(source._chunks._ahead)
    assert [chunk for chunk in range(20) if chunk in source._chunks.kept] == list(range(10))
