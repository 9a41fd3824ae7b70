"""ArrowIpcSource on real files: mapped and by ranges, compressed or not, and damaged."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

from pipeline import Dataset
from pipeline.debug.conformance import check_source, same
from pipeline.errors import RecordError, SourceError
from pipeline.sources.arrow_ipc import ArrowIpcSource
from pipeline.sources.parquet import ParquetSource
from tests.tables import check_rows, damage, table

COUNTS = {
    "0": [0],
    "1": [1],
    "2": [2],
    "1000": [1000],
    "shards": [300, 0, 1, 699],
    "empty at both ends": [0, 5, 0],
}


def write(folder, rows, name="a.arrow", batch=64, codec=None):
    path = str(folder / name)
    with ipc.new_file(path, rows.schema, options=ipc.IpcWriteOptions(compression=codec)) as w:
        w.write_table(rows, max_chunksize=batch)
    return path


def shards(folder, counts, **options):
    starts = np.cumsum([0, *counts]).tolist()
    return [
        write(folder, table(start, n), f"{k}.arrow", **options)
        for k, (start, n) in enumerate(zip(starts, counts, strict=False))
    ]


@pytest.mark.parametrize(("mapped", "codec"), [(True, None), (True, "zstd"), (False, "lz4")])
@pytest.mark.parametrize("counts", list(COUNTS.values()), ids=list(COUNTS))
def test_keeps_what_a_source_promises(tmp_path, counts, mapped, codec):
    paths = shards(tmp_path, counts, codec=codec)
    source = ArrowIpcSource(paths, memory_map=mapped, cache_bytes=4096)
    check_source(source, samples=16)
    n = sum(counts)
    for wanted in (np.arange(n), np.arange(n)[::-1], np.random.default_rng(0).permutation(n)):
        check_rows(source, wanted)


@pytest.mark.parametrize("columns", [None, ["deep.name", "id"]])
def test_values_are_those_of_parquet(tmp_path, columns):
    rows = table(0, 100)
    pq.write_table(rows, tmp_path / "a.parquet", row_group_size=30)
    a = ParquetSource(tmp_path / "a.parquet", columns).read(np.arange(100))
    b = ArrowIpcSource(write(tmp_path, rows), columns).read(np.arange(100))
    assert list(a.tree) == list(b.tree)
    assert same(a.tree, b.tree)


def test_feather_files_and_suffixes(tmp_path):
    for name in ("a.feather", "b.arrow", "c.ipc"):
        feather.write_feather(table(0, 9), tmp_path / name)
        (component,) = Dataset(str(tmp_path / name)).components
        assert isinstance(component.source, ArrowIpcSource)
        check_rows(component.source, [8, 3])
    (tmp_path / "d.feather").write_bytes(b"FEA1" + bytes(100) + b"FEA1")
    with pytest.raises(SourceError, match=r"d\.feather: it is Feather version 1"):
        ArrowIpcSource(tmp_path / "d.feather")


def test_chunk_bounds_are_record_batches(tmp_path):
    assert ArrowIpcSource(shards(tmp_path, [100, 0, 70])).chunk_bounds.tolist() == [
        0, 64, 100, 164, 170,
    ]  # fmt: skip


def test_growing_dictionaries(tmp_path):
    parts = [pa.array(v).dictionary_encode() for v in (["a", "b"], ["a", "b", "c"])]
    path = str(tmp_path / "a.arrow")
    options = ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    with ipc.new_file(path, pa.schema([("s", parts[0].type)]), options=options) as w:
        for part in parts:
            w.write_batch(pa.record_batch({"s": part}))
    for mapped in (True, False):
        rows = ArrowIpcSource(path, memory_map=mapped).read(np.array([4, 0, 3, 1]))
        assert rows.tree["s"].tolist() == ["c", "a", "b", "b"]


def test_differing_schemas_are_named(tmp_path):
    a = write(tmp_path, pa.table({"i": pa.array([1], pa.int64())}))
    b = write(tmp_path, pa.table({"i": pa.array([1], pa.int8())}), "b.arrow")
    with pytest.raises(SourceError, match=r"'i' is int8 in .*b\.arrow but int64 in .*a\.arrow"):
        ArrowIpcSource([a, b])


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("codec", [None, "zstd"])
def test_a_corrupt_batch_is_named_and_spoils_no_other(tmp_path, codec, mapped):
    rows = pa.table({"text": [f"row {i}" for i in range(30)]})
    path = write(tmp_path, rows, batch=10, codec=codec)
    source = ArrowIpcSource(path, memory_map=mapped)
    start, stop = source._footers[0].block(1)
    message = int(source._footers[0].batches[1, 1])
    damage(path, start + message + (20 if codec is None else 10), 8)  # offsets, or the frame
    text = rf"rows 10 to 19 \(record batch 1\) of {path}: bytes {start} to {stop - 1}: .*on_err"
    with pytest.raises(RecordError, match=text):
        source.read(np.array([5, 15]))
    assert source.read(np.array([5, 25])).tree["text"].tolist() == ["row 5", "row 25"]
    kept = Dataset(source).on_error("skip").read(np.arange(30)).rows()
    assert {row["text"] for row in kept} == {f"row {i}" for i in (*range(10), *range(20, 30))}


def test_no_damage_to_a_file_is_a_crash_or_goes_unnamed(tmp_path):
    rows = table(0, 50)
    whole = Path(write(tmp_path, rows, batch=25)).read_bytes()
    bad = str(tmp_path / "bad.arrow")
    draw = random.Random(0)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 4])):
            data[draw.randrange(len(data) // 2, len(data))] ^= 1 << draw.randrange(8)
        Path(bad).write_bytes(data)
        said = "bad.arrow"
        try:
            ArrowIpcSource(bad).read(np.arange(50))
        except SourceError as e:
            said = str(e)
        except IndexError:
            pass  # fewer rows than there were
        assert "bad.arrow" in said


@pytest.mark.parametrize("cut", [0, 5, 10, 100, -1, -7, -200])
def test_cut_files_name_themselves(tmp_path, cut):
    path = write(tmp_path, table(0, 100))
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[:cut])
    with pytest.raises(SourceError, match=r"a\.arrow.*Rewrite"):
        ArrowIpcSource(path)


def test_a_mapped_file_that_is_cut_or_replaced_is_named_not_touched(tmp_path):
    path = write(tmp_path, table(0, 1000))
    source = ArrowIpcSource(path)
    check_rows(source, [0, 999])
    whole, changed = Path(path).read_bytes(), os.stat(path).st_mtime_ns
    os.truncate(path, 100)  # the mapping's pages are gone: reading them would be SIGBUS
    with pytest.raises(SourceError, match=r"a\.arrow has changed.*now 100"):
        source.read(np.array([0, 999]))
    Path(path).write_bytes(whole)
    os.utime(path, ns=(changed, changed))
    check_rows(source, [0, 999])
    os.remove(path)
    with pytest.raises(SourceError, match=r"cannot read .*a\.arrow"):
        source.read(np.array([0]))


def test_another_file_of_the_same_size_is_noticed_when_opened(tmp_path, monkeypatch):
    path = write(tmp_path, pa.table({"i": np.arange(100)}), batch=50)
    source = ArrowIpcSource(path)
    write(tmp_path, pa.table({"i": np.arange(100)}), batch=25)
    monkeypatch.setattr(source, "_files", replace(source._files, sizes=(os.path.getsize(path),)))
    with pytest.raises(SourceError, match="changed"):
        source.read(np.array([0]))


def test_pickles_read_the_same_in_another_process(tmp_path):
    source = ArrowIpcSource(shards(tmp_path, [50, 50]), ["id", "text"])
    data = pickle.dumps(source)
    assert len(data) < 3000
    code = (
        "import pickle, sys, numpy as np; s = pickle.load(sys.stdin.buffer);"
        "rows = s.read(np.arange(99, -1, -1)).tree['id'].tolist();"
        "sys.stdout.buffer.write(pickle.dumps((rows, s.fingerprint())))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert pickle.loads(done.stdout) == (list(range(99, -1, -1)), source.fingerprint())


def test_close_lets_go_of_the_file(tmp_path):
    source = ArrowIpcSource(shards(tmp_path, [50] * 3))
    source.read(np.arange(150))
    source.close()
    with open("/proc/self/maps") as f:
        assert str(tmp_path) not in f.read()


def test_layout_is_plain_and_says_what_to_do(tmp_path):
    plain, packed = (
        ArrowIpcSource(write(tmp_path, table(0, 100), codec=codec)).layout()[0]
        for codec in (None, "zstd")
    )
    assert (plain["rows"], [g["rows"] for g in plain["groups"]]) == (100, [64, 36])
    assert (plain["codecs"], packed["codecs"]) == ([], ["ZSTD"])
    assert "mapped" in plain["advice"][0]
    assert "shuffle(chunks=16)" in packed["advice"][0]


def test_over_gs_only_the_batches_needed_are_fetched(tmp_path, gcs):
    path = write(tmp_path, table(0, 1000), codec="zstd")
    source = ArrowIpcSource(gcs.upload(path), storage=gcs.storage(gap=0))
    check_source(source, samples=8)
    source.close()
    gcs.forget()
    check_rows(source, [3, 500, 501])
    spans = [source._footers[0].block(b) for b in (0, 500 // 64)]
    asked = [r.removeprefix("bytes=") for _, _, r in gcs.log()]
    assert {f"{a}-{b - 1}" for a, b in spans} <= set(asked)
    assert len(asked) <= 6
