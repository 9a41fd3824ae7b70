"""ParquetSource on real files: types, nulls, row groups, the cache, and damaged files."""

from __future__ import annotations

import datetime
import json
import os
import pickle
import subprocess
import sys
import threading
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import Dataset
from pipeline.debug.conformance import check_source, same
from pipeline.errors import RecordError, SourceError
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


def shards(folder, counts, rows=64):
    start, paths = 0, []
    for k, n in enumerate(counts):
        paths.append(str(folder / f"{k}.parquet"))
        pq.write_table(table(start, n), paths[-1], row_group_size=rows)
        start += n
    return paths


def write(folder, columns, name="a.parquet", **options):
    path = str(folder / name)
    pq.write_table(pa.table(columns), path, **options)
    return path


def column(folder, values, kind):
    source = ParquetSource(write(folder, {"c": pa.array(values, kind)}))
    return source.read(np.arange(len(values))).tree["c"]


@pytest.mark.parametrize("cache_bytes", [0, 1 << 28])
@pytest.mark.parametrize("counts", list(COUNTS.values()), ids=list(COUNTS))
def test_keeps_what_a_source_promises(tmp_path, counts, cache_bytes):
    source = ParquetSource(shards(tmp_path, counts), cache_bytes=cache_bytes)
    check_source(source, samples=24)
    n = sum(counts)
    for wanted in (np.arange(n), np.arange(n)[::-1], np.random.default_rng(0).permutation(n)):
        check_rows(source, wanted)


def test_chunk_bounds_are_row_groups_across_files(tmp_path):
    source = ParquetSource(shards(tmp_path, [100, 0, 70]))
    assert source.chunk_bounds[source.chunk_bounds.searchsorted(1) :].tolist() == [
        64, 100, *([100] * (len(source.chunk_bounds) - 5)), 164, 170,
    ]  # fmt: skip
    assert (np.diff(source.chunk_bounds) >= 0).all()


def test_types(tmp_path):
    day, moment = datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2, 3, 4, 5)
    cases = [
        ([1, 2], pa.uint8(), np.array([1, 2], np.uint8)),
        ([True, False], pa.bool_(), np.array([True, False])),
        ([1.5, None], pa.float64(), np.array([1.5, np.nan])),
        ([day, None], pa.date32(), np.array([day, None], "M8[D]")),
        ([moment, None], pa.timestamp("us"), np.array([moment, None], "M8[us]")),
        ([moment], pa.timestamp("ms", "Asia/Tokyo"), np.array([moment], "M8[ms]")),
        (["a\0", None], pa.large_string(), np.array(["a\0", None], object)),
        ([b"a\0", None], pa.binary(2), np.array([b"a\0", None], object)),
        ([Decimal("1.50"), None], pa.decimal128(5, 2), np.array([Decimal("1.50"), None], object)),
        ([None, None], pa.null(), np.array([None, None], object)),
        ([[1.0, 2.0], None], pa.list_(pa.float32(), 2), np.array([[1, 2], [np.nan] * 2], "f4")),
    ]
    for values, kind, expected in cases:
        assert same(column(tmp_path, values, kind), expected), kind


def test_ragged_lists_are_arrays_of_the_type_and_others_lists(tmp_path):
    got = column(tmp_path, [[1, 2], [], None, [3]], pa.large_list(pa.int16()))
    assert [None if v is None else (v.dtype, v.tolist()) for v in got] == [
        ("int16", [1, 2]), ("int16", []), None, ("int16", [3]),
    ]  # fmt: skip
    assert np.isnan(column(tmp_path, [[1.0, None]], pa.list_(pa.float64()))[0][1])
    nested = [[[1], [2, 3]], None]
    assert column(tmp_path, nested, pa.list_(pa.list_(pa.int8()))).tolist() == nested
    cube = column(tmp_path, [[[1, 2]], [[3, 4]]], pa.list_(pa.list_(pa.int8(), 2), 1))
    assert same(cube, np.array([[[1, 2]], [[3, 4]]], np.int8))


@pytest.mark.parametrize(
    ("values", "kind", "name"),
    [
        ([1, 2, None, 4], pa.int64(), "c"),
        ([True, True, None, True], pa.bool_(), "c"),
        ([[1], [2], [3, None], [4]], pa.list_(pa.int8()), "c"),
        ([[1], [2], [None], [4]], pa.list_(pa.int8(), 1), "c"),
        ([[1], [2], None, [4]], pa.list_(pa.int8(), 1), "c"),
        ([{"i": 1}, {"i": 2}, None, {"i": 4}], pa.struct([("i", pa.int8())]), "c.i"),
    ],
)
def test_a_null_integer_spoils_its_row_alone(tmp_path, values, kind, name):
    path = write(tmp_path, {"c": pa.array(values, kind)})
    source = ParquetSource(path)
    assert len(source.read(np.array([3, 1, 0, 3]))) == 4
    with pytest.raises(RecordError, match=rf"'{name}' of row 2 of {path} is null.*on_error"):
        source.read(np.array([3, 2, 0]))


def test_dtypes_do_not_depend_on_the_rows_read(tmp_path):
    path = write(tmp_path, {"f": pa.array([1, None], pa.float32()), "i": pa.array([1, 2])})
    source = ParquetSource(path)
    dtypes = [str(source.read(np.array(w, np.int64))) for w in ([0], [1])]
    assert dtypes[0] == dtypes[1] == "Columns(f: float32[1], i: int64[1])"
    assert str(source.read(np.array([]))) == "Columns(f: float32[0], i: int64[0])"


def test_columns_project_in_the_order_asked(tmp_path):
    paths = shards(tmp_path, [3000])
    source = ParquetSource(paths, columns=["deep", "id"])
    assert list(source.read(np.array([1])).tree) == ["deep", "id"]
    whole, narrow = ParquetSource(paths), ParquetSource(paths, columns=["id"])
    for s in (whole, narrow):
        s.read(np.array([1]))
    assert narrow._chunks.kept.weight < whole._chunks.kept.weight  # nothing else was decoded
    with pytest.raises(SourceError, match=r"no column \['nope'\]. Choose among \['id', 'x'"):
        ParquetSource(paths, columns=["id", "nope"])
    with pytest.raises(SourceError, match="each once"):
        ParquetSource(paths, columns=["id", "id"])


def test_differing_schemas_are_named_with_both_types(tmp_path):
    a = write(tmp_path, {"i": pa.array([1], pa.int64()), "same": pa.array([1])})
    b = write(tmp_path, {"i": pa.array([1], pa.int32()), "same": pa.array([1])}, "b.parquet")
    with pytest.raises(SourceError, match=r"'i' is int32 in .*b\.parquet but int64 in .*a\.parq"):
        ParquetSource([a, b])
    assert len(ParquetSource([a, b], columns=["same"])) == 2


def test_nullability_and_dictionaries_are_no_difference(tmp_path):
    a = write(tmp_path, {"s": pa.array(["a"])})
    b = str(tmp_path / "b.parquet")
    pq.write_table(pa.table([["b"]], schema=pa.schema([pa.field("s", pa.string(), False)])), b)
    c = write(tmp_path, {"s": pa.array(["c"]).dictionary_encode()}, "c.parquet")
    rows = ParquetSource([a, b, c]).read(np.array([2, 1, 0]))
    assert rows.tree["s"].tolist() == ["c", "b", "a"]


def test_what_a_file_calls_the_values_of_a_list_is_no_difference(tmp_path):
    lists = {
        "l": pa.array([[1, 2]], pa.list_(pa.int8())),
        "v": pa.array([[1.5]], pa.list_(pa.float32(), 1)),
    }
    a = write(tmp_path, lists)
    b = write(tmp_path, lists, "b.parquet", use_compliant_nested_type=False)
    source = ParquetSource([a, b])
    assert [v.tolist() for v in source.read(np.array([1, 0])).tree["l"]] == [[1, 2]] * 2
    assert pickle.loads(pickle.dumps(source)).fingerprint() == source.fingerprint()


class Counting(ParquetSource):
    decoded: list[int]

    def _decode(self, chunks):
        self.decoded += chunks
        return super()._decode(chunks)


def counting(paths, **options):
    source = Counting(paths, **options)
    source.decoded = []
    return source


@pytest.mark.parametrize("cache_bytes", [0, 1 << 28])
def test_sequential_reading_decodes_no_group_twice(tmp_path, cache_bytes):
    source = counting(shards(tmp_path, [200, 200]), cache_bytes=cache_bytes)
    for start in range(0, 400, 10):
        source.read(np.arange(start, start + 10))
    assert len(source.decoded) == len(set(source.decoded)) == 8


def test_one_call_decodes_a_group_once_however_ordered(tmp_path):
    source = counting(shards(tmp_path, [400]), cache_bytes=0)
    source.read(np.random.default_rng(0).integers(0, 400, 1000))
    assert sorted(source.decoded) == list(range(7))


def test_the_cache_is_bounded_and_no_part_of_the_fingerprint(tmp_path):
    paths = shards(tmp_path, [640])
    one = counting(paths)
    one.read(np.array([0]))
    limit = 3 * one._chunks.kept.weight
    source = counting(paths, cache_bytes=limit)
    for i in range(0, 640, 64):
        source.read(np.array([i]))
        kept = source._chunks.kept
        assert 0 < kept.weight <= limit
    assert source.fingerprint() == ParquetSource(paths).fingerprint()


def test_threads_decode_a_group_once(tmp_path):
    source = counting(shards(tmp_path, [400]))
    go = threading.Barrier(6)

    def work():
        go.wait()
        assert source.read(np.arange(400)).tree["id"].tolist() == list(range(400))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(source.decoded) == list(range(7))


def test_bad_files_name_themselves(tmp_path):
    whole = tmp_path / "whole.parquet"
    pq.write_table(table(0, 100), whole)
    data = whole.read_bytes()
    for content in (b"", b"text" * 100, data[:10], data[:-1], data[: len(data) // 2], data[100:]):
        bad = tmp_path / "bad.parquet"
        bad.write_bytes(content)
        with pytest.raises(SourceError, match=r"bad\.parquet.*Rewrite"):
            ParquetSource([whole, bad]).read(np.array([100]))


def test_a_corrupt_group_is_named_and_spoils_no_other(tmp_path):
    path = write(tmp_path, {"i": np.arange(1000)}, row_group_size=100, compression="zstd")
    with pq.ParquetFile(path) as f:
        at = f.metadata.row_group(3).column(0).dictionary_page_offset
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(b"\xa5" * 64)
    source = ParquetSource(path)
    with pytest.raises(RecordError, match=rf"rows 300 to 399 \(row group 3\) of {path}.*on_error"):
        source.read(np.array([5, 305]))
    assert source.read(np.array([5, 405])).tree["i"].tolist() == [5, 405]


def pages(folder, n=1000, **options):
    """One row group, one column in ten pages, and where they lie."""
    ids = pa.table({"i": np.arange(n), "same": np.zeros(n)})
    path = str(folder / "pages.parquet")
    options = {"use_dictionary": False, "compression": None} | options
    pq.write_table(
        ids, path, data_page_size=8 * n // 10, write_batch_size=n // 10, **options
    )  # fmt: skip
    chunk = pq.read_metadata(path).row_group(0).column(0)
    return path, chunk.data_page_offset, chunk.total_compressed_size


def test_rows_before_a_corrupt_page_still_arrive(tmp_path):
    path, start, size = pages(tmp_path, compression="zstd")
    damage(path, start + size * 55 // 100, 40)
    source = ParquetSource(path)
    text = rf"rows 500 to 999 \(row group 0\) of {path}: column 'i', bytes {start} to "
    with pytest.raises(RecordError, match=text + rf"{start + size - 1}: .*on_error"):
        source.read(np.array([999]))
    assert source.read(np.arange(500)).tree["i"].tolist() == list(range(500))
    with pytest.raises(RecordError, match="rows 500 to"):
        source.read(np.array([0, 500]))


def test_page_checksums_are_checked_where_there_are_any(tmp_path):
    path, start, size = pages(tmp_path, write_page_checksum=True)
    damage(path, start + size * 55 // 100, 1)  # a value: nothing else would notice
    assert ParquetSource(path, verify=False).read(np.arange(1000)).tree["i"].tolist() != list(
        range(1000)
    )
    with pytest.raises(RecordError, match=r"rows 500 to 999 .*CRC"):
        ParquetSource(path).read(np.array([999]))
    assert ParquetSource(path, ["same"]).read(np.array([999])).tree["same"] == [0]


def test_bad_pages_are_skipped_and_neighbours_kept(tmp_path):
    path, start, size = pages(tmp_path, 200, write_page_checksum=True)
    damage(path, start + size * 85 // 100, 8)
    rows = Dataset(ParquetSource(path)).on_error("skip").read(np.arange(200)).rows()
    assert {int(row["i"]) for row in rows} == set(range(160))


def test_memory_that_runs_out_is_no_bad_record(tmp_path, monkeypatch):
    def full(*args, **options):
        raise pa.ArrowMemoryError("malloc of size 64 failed")

    source = ParquetSource(shards(tmp_path, [10]))
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", full)
    with pytest.raises(MemoryError, match="malloc of size 64"):
        source.read(np.array([0]))


def test_text_that_is_none_spoils_its_row_alone(tmp_path):
    values = [b"a", b"\xff\xfe", b"c"]
    text = pa.array(values, pa.binary()).view(pa.string())
    path = write(tmp_path, {"s": text}, use_dictionary=False)
    source = ParquetSource(path)
    assert source.read(np.array([2, 0])).tree["s"].tolist() == ["c", "a"]
    with pytest.raises(
        RecordError,
        match=rf"column 's' of row 1 of {path} cannot be had from its string.*UTF-8.*on_error",
    ):
        source.read(np.array([2, 1, 0]))


def test_fields_of_structs_project(tmp_path):
    kind = pa.struct([("x", pa.int8()), ("y", pa.struct([("z", pa.string()), ("w", pa.int8())]))])
    value = {"x": 1, "y": {"z": "a", "w": 2}}
    path = write(tmp_path, {"s": pa.array([value, value], kind), "s.x": [7, 8], "t": [1, 2]})
    source = ParquetSource(path, ["t", "s.y.w"])
    assert str(source.read(np.array([1]))) == "Columns(t: int64[1], s.y.w: int8[1])"
    assert source._footers_of([0])[0].leaves == (2, 4)
    both = ParquetSource(path, ["s.y"]).read(np.array([0])).tree
    assert both == {"s": {"y": {"z": ["a"], "w": [2]}}}
    for columns, text in (
        (["s", "s.y"], r"'s.y' is part of 's'"),
        (["s.q"], r"no column \['s.q'\]"),
        (["s.y.z.q"], r"no column \['s.y.z.q'\]"),
        ([], "at least one"),
    ):
        with pytest.raises(SourceError, match=text):
            ParquetSource(path, columns)


@pytest.mark.slow
def test_keeps_what_a_source_promises_with_many_rows_and_files(tmp_path):
    paths = []
    for k, part in enumerate(np.array_split(np.arange(100_000), 49)):
        paths.append(write(tmp_path, {"i": part}, f"{k:02}.parquet", row_group_size=700))
    paths.insert(20, write(tmp_path, {"i": np.arange(0)}, "none.parquet"))
    source = ParquetSource(paths, cache_bytes=1 << 20)
    check_source(source, samples=100)
    for order in (np.arange(100_000), np.random.default_rng(0).permutation(100_000)):
        assert source.read(order).tree["i"].tolist() == order.tolist()


def test_layout_is_plain_and_says_what_to_do(tmp_path):
    paths = [
        *shards(tmp_path, [100, 0]),
        write(tmp_path, {"i": np.random.default_rng(0).random(9_000_000)}, row_group_size=1 << 24),
    ]
    small, none = ParquetSource(paths[:2]).layout()
    large = ParquetSource(paths[2]).layout()[0]
    assert json.loads(json.dumps(small)) == small
    assert (small["rows"], small["bytes"]) == (100, os.path.getsize(paths[0]))
    assert [g["rows"] for g in small["groups"]] == [64, 36]
    assert small["columns"]["kind"].startswith("dictionary<")
    assert small["codecs"] == ["SNAPPY"]
    assert "small" in small["advice"][0]
    assert "no rows" in none["advice"][0]
    assert "large" in large["advice"][0]


def test_a_file_replaced_or_removed_names_itself(tmp_path):
    path = write(tmp_path, {"i": np.arange(10)})
    source = ParquetSource(path)
    write(tmp_path, {"i": np.arange(1000)})
    with pytest.raises(SourceError, match=r"a\.parquet has changed since"):
        source.read(np.array([0]))
    os.remove(path)
    with pytest.raises(SourceError, match=r"cannot read .*a\.parquet"):
        source.read(np.array([0]))


def test_fingerprint_outlives_a_move_and_sees_a_change(tmp_path):
    (tmp_path / "a").mkdir()
    paths = shards(tmp_path / "a", [3, 4])
    first = ParquetSource(paths).fingerprint()
    assert ParquetSource(paths[::-1]).fingerprint() != first
    assert ParquetSource(paths, columns=["id"]).fingerprint() != first
    (tmp_path / "a").rename(tmp_path / "b")
    assert ParquetSource(str(tmp_path / "b" / "*.parquet")).fingerprint() == first


def test_pickles_are_small_and_read_the_same_in_another_process(tmp_path):
    source = ParquetSource(shards(tmp_path, [500, 500]), columns=["id", "text"])
    source.read(np.arange(1000))
    data = pickle.dumps(source)
    assert len(data) < 2500
    code = (
        "import pickle, sys, numpy as np; s = pickle.load(sys.stdin.buffer);"
        "rows = s.read(np.arange(999, -1, -1)).tree['text'].tolist();"
        "sys.stdout.buffer.write(pickle.dumps((rows, s.fingerprint())))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    texts = [None if i % 5 == 1 else f"t{i}\0" for i in range(999, -1, -1)]
    assert pickle.loads(done.stdout) == (texts, source.fingerprint())


def test_no_file_stays_open(tmp_path):
    source = ParquetSource(shards(tmp_path, [50] * 3))
    source.read(np.arange(150))
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    assert not [f for f in links if os.path.islink(f) and str(tmp_path) in os.readlink(f)]
