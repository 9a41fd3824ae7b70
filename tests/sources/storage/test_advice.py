"""Which bytes the kernel is told of: those of records to come, once, while files are not there."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from pipeline import (
    ArrayRecordSource,
    ArrowIpcSource,
    BagzSource,
    Dataset,
    Loader,
    TFRecordSource,
    TokenSource,
)
from pipeline.errors import SourceError
from pipeline.sources.storage import advice
from pipeline.sources.storage.advice import Advice
from tests.writers import bags, payload, tfrecord

N = 500


def _array_record(path: Path) -> ArrayRecordSource:
    for part, ids in (("a", range(200)), ("b", range(200, N))):
        writer = ArrayRecordWriter(str(path / part), "group_size:1,uncompressed")
        for i in ids:
            writer.write(payload(i))
        writer.close()
    return ArrayRecordSource([str(path / "a"), str(path / "b")])


def _bagz(path: Path) -> BagzSource:
    bags(path / "a.bag", range(N))
    return BagzSource(str(path / "a.bag"))


def _tfrecord(path: Path) -> TFRecordSource:
    tfrecord(path / "a.tfrecord", range(N))
    return TFRecordSource(str(path / "a.tfrecord"))


SOURCES: dict[str, Callable[[Path], Any]] = {
    "array_record": _array_record,
    "bagz": _bagz,
    "tfrecord": _tfrecord,
}
Told = list[tuple[str, int, int]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What the kernel is told of: path, start and size. No file is in memory."""
    found: Told = []

    def tell(handle: int, start: int, size: int, kind: int) -> None:
        assert kind == os.POSIX_FADV_WILLNEED
        found.append((os.readlink(f"/proc/self/fd/{handle}"), start, size))

    monkeypatch.setattr(os, "posix_fadvise", tell)
    monkeypatch.setattr(Advice, "_absent", lambda *_: True)
    return found


@pytest.mark.parametrize("kind", list(SOURCES))
def test_the_bytes_told_are_those_of_the_records(kind: str, tmp_path: Path, told: Told):
    source = SOURCES[kind](tmp_path)
    asked = np.array([7, 450, 3, 199, 200])
    assert source.horizon >= len(asked)
    source.ahead(asked)
    data = [Path(path).read_bytes()[start : start + size] for path, start, size in told]
    assert len(data) == len(asked)
    for i in asked.tolist():
        assert any(payload(i) in part for part in data)
    assert sum(map(len, data)) < 100 * len(asked)  # and not the whole file


@pytest.mark.parametrize("kind", list(SOURCES))
def test_what_was_told_the_last_time_is_not_told_again(kind: str, tmp_path: Path, told: Told):
    source = SOURCES[kind](tmp_path)
    source.ahead(np.arange(20, 30))
    source.ahead(np.arange(25, 35))
    assert len(told) == len(set(told)) == 15


def test_files_in_memory_are_not_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = _array_record(tmp_path)
    monkeypatch.setattr(Advice, "_absent", lambda *_: False)
    assert source.horizon == 0
    assert list(Loader(Dataset(source), 64))  # nor does reading ask for anything


def test_whether_they_are_in_memory_is_asked_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source, now = _array_record(tmp_path), [100.0]
    monkeypatch.setattr(advice.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Advice, "_absent", lambda *_: False)
    assert source.horizon == 0
    monkeypatch.setattr(Advice, "_absent", lambda *_: True)
    assert source.horizon == 0
    now[0] += 2 * advice.AGAIN
    assert source.horizon > 0
    node = Dataset(source).shuffle().map(len).top.node
    assert node.horizon == source.horizon
    monkeypatch.setattr(Advice, "_absent", lambda *_: False)
    now[0] += 2 * advice.AGAIN
    assert node.horizon == 0


def test_a_budget_of_bytes_bounds_how_many(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
):
    source = _bagz(tmp_path)
    each = (tmp_path / "a.bag").stat().st_size / N
    monkeypatch.setattr(advice, "BYTES", int(10.5 * each))
    assert source.horizon == 10


def test_a_loop_has_nearly_every_record_told_before_it_is_read(tmp_path: Path, told: Told):
    source = _array_record(tmp_path)
    batches = list(Loader(Dataset(source, seed=1).shuffle(), 16))
    assert N - 32 <= len(set(told)) <= N
    assert sorted(r for b in batches for r in b.tolist()) == sorted(map(payload, range(N)))


def test_a_file_that_is_gone_is_the_readers_business(tmp_path: Path, told: Told):
    source, known = _bagz(tmp_path), _bagz(tmp_path)
    known.read(np.array([0]))
    (tmp_path / "a.bag").unlink()
    known.ahead(np.arange(5))  # its index is in memory
    source.ahead(np.arange(5))
    assert told == []
    with pytest.raises(SourceError):
        source.read(np.arange(5))


def test_the_programs_own_random_numbers_are_left_alone(tmp_path: Path):
    source, before = _bagz(tmp_path), random.getstate()
    assert source.horizon >= 0
    assert random.getstate() == before


def test_a_file_without_a_kernel_that_knows_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(os, "RWF_NOWAIT")
    assert _bagz(tmp_path).horizon == 0


def test_a_worker_tells_of_nothing(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch):
    source = _bagz(tmp_path)
    assert source.horizon > 0
    monkeypatch.setattr(Advice, "alone", False)
    assert source.horizon == 0


def test_rows_of_token_files_are_told_of(tmp_path: Path, told: Told):
    for name, n in (("a.u16", 100), ("b.u16", 80)):
        np.arange(n, dtype=np.uint16).tofile(tmp_path / name)
    source = TokenSource([str(tmp_path / "a.u16"), str(tmp_path / "b.u16")], length=10, stride=5)
    asked = np.array([2, 20, 0])
    assert source.horizon >= 3
    source.ahead(asked)
    tokens = [
        np.frombuffer(Path(path).read_bytes()[start : start + size], np.uint16).tolist()
        for path, start, size in told
    ]
    assert sorted(tokens) == sorted(source.read(asked).tree.tolist())
    pickle.loads(pickle.dumps(source)).ahead(asked)
    assert len(told) == 6
    assert TokenSource(str(tmp_path / "a.u16")).horizon == 0  # single tokens


@pytest.mark.parametrize("cold", [True, False])
def test_rows_of_a_cache_on_a_disk_are_told_of(
    cold: bool, tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
):
    ds = Dataset([{"text": f"row {i}"} for i in range(50)]).cache(str(tmp_path))
    first = list(Loader(ds, 10))
    monkeypatch.setattr("pipeline.nodes.cache.disk.is_absent", lambda *_: cold)
    told.clear()
    again = list(Loader(ds, 10))
    assert [b["text"].tolist() for b in again] == [b["text"].tolist() for b in first]
    assert len(set(told)) == (50 if cold else 0)


# ---- Arrow: a row lies in several buffers, of which offsets tell where

LISTS = {
    "binary": (pa.binary(), lambda i: f"row {i:04}, ".encode() * 3000),
    "large text": (pa.large_string(), lambda i: f"row {i:04}, " * 3000),
    "numbers": (pa.list_(pa.int16()), lambda i: [i] * 16_000),
    "fixed": (pa.list_(pa.int16(), 16_000), lambda i: [i] * 16_000),
    "nested": (pa.list_(pa.list_(pa.int16())), lambda i: [[i] * 8_000] * 2),
    "text within": (
        pa.struct({"a": pa.list_(pa.string())}),
        lambda i: {"a": [f"row {i:04}, " * 3000]},
    ),
    "map": (pa.map_(pa.string(), pa.binary()), lambda i: [("k", b"%d" % i * 9000)]),
}


@pytest.mark.parametrize("new", [pa.ipc.new_stream, pa.ipc.new_file], ids=["stream", "file"])
@pytest.mark.parametrize("kind", list(LISTS))
def test_rows_of_arrow_are_told_by_their_offsets(kind: str, new: Any, tmp_path: Path, told: Told):
    arrow, make = LISTS[kind]
    schema, path = pa.schema([("x", arrow), ("id", pa.int64())]), str(tmp_path / "a.arrow")
    with new(path, schema) as writer:
        for start in (0, 30):
            rows = [{"x": make(i), "id": i} for i in range(start, start + 30)]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    source, wanted = ArrowIpcSource(path), np.array([7, 45, 3])
    source.ahead(wanted)
    there = _pages(told)
    told.clear()
    source.read(wanted)
    assert told == []  # all was told
    source.ahead(np.array([3, 7, 45, 9]))
    more = _pages(told)
    whole = os.path.getsize(path) / 4096
    assert 3 * 30_000 / 4096 - 12 < len(there) < 0.1 * whole + 24
    assert 4 < len(more) < 16 + 0.05 * whole  # of one row
    asked = {i for i in range(60) if _lies_in(Path(path).read_bytes(), make(i), there)}
    assert not asked or asked == {7, 45, 3}


def _pages(told: Told) -> set[int]:
    return {page for _, at, size in told for page in range(at // 4096, (at + size) // 4096 + 1)}


def _lies_in(data: bytes, value: Any, pages: set[int]) -> bool:
    # whether the middle of a value of bytes or text was told of
    value = value.encode() if isinstance(value, str) else value
    found = data.find(value) if isinstance(value, bytes) else -1
    return found >= 0 and (found + len(value) // 2) // 4096 in pages


def test_columns_that_are_converted_are_told_whole(tmp_path: Path, told: Told):
    path = str(tmp_path / "a.arrow")
    columns = {"b": pa.array([True, False] * 200_000), "t": pa.array(["to", None] * 200_000)}
    with pa.ipc.new_file(path, pa.table(columns).schema) as writer:
        writer.write_table(pa.table(columns))
    ArrowIpcSource(path, columns=["b"]).read(np.array([5]))
    assert max(size for _, _, size in told) == 50_000


@pytest.mark.parametrize("codec", [None, "lz4"])
def test_pages_come_alone_only_where_the_kernel_is_told(codec: str | None, tmp_path: Path):
    path = str(tmp_path / "a.arrow")
    table = pa.table({"x": np.arange(10_000)})
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_file(path, table.schema, options=options) as writer:
        writer.write_table(table)
    source = ArrowIpcSource(path)
    source.read(np.array([5]))
    found = Path("/proc/self/smaps").read_text().split(path)[1]
    flags = found[found.index("VmFlags:") :].split("\n")[0].split()
    assert ("rr" in flags) == (codec is None)  # decoded batches are read whole
