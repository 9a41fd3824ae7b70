"""Manifests: many shards start from one listing and one small file, and stale facts never count."""

from __future__ import annotations

import json
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from pipeline import ParquetSource
from pipeline.errors import SourceError, StorageError
from pipeline.sources import Storage, open_path
from pipeline.sources.storage import manifest
from pipeline.sources.storage.files import Files, expand
from pipeline.sources.storage.storage import Stat
from tests.emulators.fixtures import Gcs


class Counting:
    """Records of one byte; knows how often it counted, and in how many threads at most."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self.calls, self.threads = storage, 0, set[int]()

    def __call__(self, stat: Stat) -> tuple[int, Any]:
        data = self.storage.contents(stat.path)
        self.calls += 1
        self.threads.add(threading.get_ident())
        return len(data), {"first": data[0]}


def opened(paths: Any, storage: Storage) -> tuple[Files, Counting]:
    count = Counting(storage)
    return Files.counted(paths, count, storage, kind="bytes 1"), count


def shards(gcs: Gcs, n: int) -> Iterator[str]:
    for i in range(n):
        yield gcs.put(f"{i:04}.bytes", bytes([i % 251]) * (i % 7 + 1))


@pytest.mark.long
def test_a_thousand_shards_start_from_one_listing(gcs: Gcs, tmp_path: Path) -> None:
    n = len(list(shards(gcs, 1000)))
    storage = gcs.storage(cache=tmp_path)
    gcs.forget()
    first, count = opened(gcs.bucket + "/*.bytes", storage)
    assert (count.calls, len(count.threads) > 1) == (n, True)
    # a listing, a look for a manifest beside the data, and each shard
    assert len(gcs.log()) == 1 + 1 + n
    mark = first.fingerprint("bytes")
    gcs.forget()
    again, count = opened(gcs.bucket + "/*.bytes", gcs.storage(cache=tmp_path))
    assert again.fingerprint("bytes") == mark
    assert count.calls == 0
    assert len(gcs.log()) == 1
    assert (again.counts == first.counts).all()
    assert again.more == first.more
    assert again.more[3] == {"first": 3}
    assert pickle.loads(pickle.dumps(again)).fingerprint("bytes") == mark


def test_a_manifest_beside_the_data_serves_those_without_a_cache(gcs: Gcs) -> None:
    list(shards(gcs, 20))
    storage = gcs.storage(cache="")
    first, _ = opened(gcs.bucket + "/*", storage)
    assert first.write_manifest() == [f"{gcs.bucket}/{manifest.NAME}"]
    gcs.forget()
    again, count = opened(gcs.bucket + "/*", gcs.storage(cache=""))  # it is no shard itself
    assert again.fingerprint("bytes") == first.fingerprint("bytes")
    assert (len(again.paths), count.calls, len(gcs.log())) == (20, 0, 2)
    gcs.put("0007.bytes", b"new!")  # only this one is counted again
    third, count = opened(gcs.bucket + "/*", gcs.storage(cache=""))
    assert (count.calls, third.counts[7], len(third)) == (1, 4, len(first) + 4 - 1)
    some, _ = opened([gcs.put("other", b"12")], storage)
    some.write_manifest()  # what it says of others stays
    _, count = opened(gcs.bucket + "/*", gcs.storage(cache=""))
    assert count.calls == 1


def test_local_files_are_known_by_size_and_time(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for i in range(5):
        (data / f"{i}.bytes").write_bytes(bytes(i + 1))
    storage = Storage(cache=tmp_path / "cache")
    assert opened(str(data / "*"), storage)[1].calls == 5
    assert opened(str(data / "*"), storage)[1].calls == 0
    (data / "2.bytes").write_bytes(b"abc")  # as long as before
    os.utime(data / "2.bytes", ns=(0, 12345))
    files, count = opened(str(data / "*"), storage)
    assert count.calls == 5  # another listing
    assert files.more[2] == {"first": ord("a")}
    files.write_manifest()
    assert opened(str(data / "*"), Storage(cache=""))[1].calls == 0


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 2}',
        b"\x80\x04.",
        b'{"version": 2, "kinds": 7}',
        b'{"version": 2, "kinds": {"bytes 1": 7}}',
        b'{"version": 2, "kinds": [7]}',
        b"[" * 100_000,
        b'{"version": 2, "kinds": {"bytes 1": {"a.bytes": [1, "t", 1' + b"0" * 30 + b"]}}}",
    ],
)
def test_a_damaged_manifest_is_as_good_as_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "a.bytes").write_bytes(b"1")
    (tmp_path / manifest.NAME).write_bytes(damage)
    assert opened(str(tmp_path / "*"), Storage(cache=""))[1].calls == 1


@pytest.mark.parametrize(
    "row",
    [[1, "t", 1 << 60, None, ""], [1, "t"], [1, "t", -1, None, ""], [1, "t", "2", None, ""], 5],
)
def test_rows_without_sense_are_left_out(tmp_path: Path, row: Any) -> None:
    (tmp_path / "a.bytes").write_bytes(b"1")
    tag = str(os.stat(tmp_path / "a.bytes").st_mtime_ns)
    row = [tag if cell == "t" else cell for cell in row] if isinstance(row, list) else row
    text = {"version": 2, "kinds": {"bytes 1": {"a.bytes": row}}}
    (tmp_path / manifest.NAME).write_text(json.dumps(text))
    assert opened(str(tmp_path / "*"), Storage(cache=""))[1].calls == 1


def test_the_first_shard_that_cannot_be_counted_ends_it(gcs: Gcs) -> None:
    list(shards(gcs, 40))
    gcs.faults({"kind": "status", "status": 403}, match=r"GET .*0003\.bytes")
    with pytest.raises(StorageError, match=r"0003\.bytes may not be read"):
        opened(gcs.bucket + "/*.bytes", gcs.storage(deadline=5))


def test_open_path_lists_once(gcs: Gcs, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "a.parquet")
    for i in range(4):
        gcs.upload(tmp_path / "a.parquet", f"{i}.parquet")
    gcs.forget()
    source = open_path(gcs.bucket + "/*.parquet", storage=gcs.storage())
    assert len(source) == 8
    assert sum("list-type" in path for _, path, _ in gcs.log()) == 1
    named = [asked for _, path, asked in gcs.log() if unquote(path).endswith(".parquet")]
    assert named
    assert all(named)  # ranges, and no look-ups


def test_parquet_starts_from_a_manifest_and_one_footer(gcs: Gcs, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for i in range(8):
        table = pa.table({"a": range(i, i + 7)} | ({"b": range(7)} if i == 5 else {}))
        pq.write_table(table, tmp_path / f"{i}.parquet", row_group_size=3)
        gcs.upload(tmp_path / f"{i}.parquet")
    some = [f"{gcs.bucket}/{i}.parquet" for i in range(8) if i != 5]
    storage = gcs.storage(cache="")
    first = ParquetSource(some, storage=storage)
    first.files.write_manifest()
    gcs.forget()
    again = ParquetSource(some, storage=gcs.storage(cache=""))
    footers = [path for _, path, asked in gcs.log() if asked and "manifest" not in path]
    assert len(footers) == 1
    assert again.chunk_bounds.tolist() == first.chunk_bounds.tolist()
    assert again.fingerprint() == first.fingerprint()
    assert again.read(np.array([48, 0, 20])).tree["a"].tolist() == [13, 0, 8]
    # a file that is noted to have other columns is looked at, and refused or not by what is wanted
    every = gcs.bucket + "/*.parquet"
    with pytest.raises(SourceError, match=r"column 'b' is int64 in .*5\.parquet but absent in"):
        ParquetSource(every, storage=storage)
    ParquetSource(every, ["a"], storage=storage).files.write_manifest()
    with pytest.raises(SourceError, match=r"column 'b' is int64 in .*5\.parquet but absent in"):
        ParquetSource(every, storage=gcs.storage(cache=""))
    assert len(ParquetSource(every, ["a"], storage=gcs.storage(cache=""))) == 56


@pytest.mark.parametrize(
    "more",
    [None, [], [[[7, 1]]], [[[8, 1]], "00"], [[[7, -1]], "00"], [[[7, 1], [0, 1 << 40]], "00"], 5],
)
def test_what_cannot_be_of_a_parquet_file_is_left_out(tmp_path: Path, more: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": range(7)}), tmp_path / "a.parquet", row_group_size=3)
    ParquetSource(tmp_path / "a.parquet").files.write_manifest()
    noted = json.loads((tmp_path / manifest.NAME).read_text())
    noted["kinds"]["parquet 1"]["a.parquet"][3] = more
    (tmp_path / manifest.NAME).write_text(json.dumps(noted))
    assert ParquetSource(tmp_path / "a.parquet").chunk_bounds.tolist() == [0, 3, 6, 7]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/*.none", r"no file matches the pattern 'gs://.*none'. Correct"),
        ("/", r"is a directory. Name its files with a glob: 'gs://.*/\*'"),
        ("/none", r"/none does not exist.*Correct the path"),
        ("/empty", r"/empty is empty \(0 bytes\)"),
    ],
)
def test_what_names_no_file_says_so(gcs: Gcs, name: str, message: str) -> None:
    gcs.put("empty", b"")
    with pytest.raises(SourceError, match=message):
        expand(gcs.bucket + name, gcs.storage(deadline=5))


def test_single_urls_are_asked_for_together(gcs: Gcs) -> None:
    urls = list(shards(gcs, 20))
    storage = gcs.storage()
    storage.stat(urls[0])
    gcs.control(latency=0.1, forget=True)
    assert [stat.path for stat in expand(urls[::-1], storage)] == urls[::-1]
    assert gcs.most() >= 4
    assert expand("file:///dev/../etc/hostname")[0].path == "/etc/hostname"


@pytest.mark.parametrize("more", [None, 0, -1, "x", [], [1], 1 << 50, 2.5])
def test_what_cannot_be_of_array_records_is_left_out(tmp_path: Path, more: Any) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    from pipeline.sources import ArrayRecordSource

    path = tmp_path / "a.array_record"
    writer = ArrayRecordWriter(str(path), "group_size:2")
    for i in range(5):
        writer.write(bytes([i]))
    writer.close()
    fresh = ArrayRecordSource(path).chunk_bounds.tolist()
    ArrayRecordSource(path).files.write_manifest()
    noted = json.loads((tmp_path / manifest.NAME).read_text())
    noted["kinds"]["array_record"][path.name][3] = more
    (tmp_path / manifest.NAME).write_text(json.dumps(noted))
    source = ArrayRecordSource(path)
    assert source.read(np.arange(5)) == [bytes([i]) for i in range(5)]
    assert source.chunk_bounds.tolist() == fresh
    source.close()
