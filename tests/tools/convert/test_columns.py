"""Columns that are converted keep their types, under one schema for all shards."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import Dataset, ParquetSource, concatenate
from pipeline.errors import ChainError, RecordError, SourceError
from pipeline.tools.convert import convert
from tests.emulators.fixtures import Gcs

N = 2500


def with_nulls(values: list[Any], kind: pa.DataType) -> pa.Array:
    return pa.array([None if i % 7 == 3 else v for i, v in enumerate(values)], kind)


COLUMNS: dict[str, pa.Array] = {
    "i8": with_nulls([i % 100 for i in range(N)], pa.int8()),
    "u64": pa.array([2**64 - 1 - i for i in range(N)], pa.uint64()),
    "f32": with_nulls([i / 2 for i in range(N)], pa.float32()),
    "nan": pa.array([float("nan") if i % 2 else None for i in range(N)]),
    "flag": with_nulls([i % 2 == 0 for i in range(N)], pa.bool_()),
    "large": pa.array([str(i) for i in range(N)], pa.large_string()),
    "fixed": with_nulls([[i, i + 1] for i in range(N)], pa.list_(pa.int16(), 2)),
    "lists": pa.array([[i] * (i % 3) for i in range(N)], pa.large_list(pa.int16())),
    "moment": pa.array(range(N), pa.timestamp("us", "Europe/Rome")),
    "date": pa.array([datetime.date(2020, 1, 1 + i % 28) for i in range(N)]),
    "time": pa.array([datetime.time(i % 24) for i in range(N)]),
    "span": pa.array(range(N), pa.duration("ms")),
    "decimal": pa.array([Decimal(i) / 4 for i in range(N)], pa.decimal128(12, 2)),
    "map": pa.array([[("a", i)] for i in range(N)], pa.map_(pa.string(), pa.int32())),
    "struct": pa.array([{"x": i, "y": [str(i)]} for i in range(N)]),
    "bytes3": pa.array([b"abc"] * N, pa.binary(3)),
    "late": pa.array([None] * 2000 + ["x"] * 500, pa.string()),
    "null": pa.nulls(N),
    "view": with_nulls([str(i) * (i % 9) for i in range(N)], pa.string_view()),
    "bytes view": with_nulls([b"ab" * (i % 9) for i in range(N)], pa.binary_view()),
    "views": pa.array([[str(i)] * (i % 3) for i in range(N)], pa.list_(pa.string_view())),
    "deep view": pa.array([{"x": str(i)} for i in range(N)], pa.struct([("x", pa.string_view())])),
}


def write(path: Path, table: pa.Table) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=700)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=333)
    return path


def read(files: tuple[str, ...]) -> pa.Table:
    def one(file: str) -> pa.Table:
        return pq.read_table(file) if file.endswith("t") else pa.ipc.open_file(file).read_all()

    return pa.concat_tables([one(file) for file in files])


@pytest.mark.parametrize("out", [".parquet", ".arrow"])
@pytest.mark.parametrize("into", [".parquet", ".arrow"])
def test_every_type_comes_through(tmp_path: Path, into: str, out: str) -> None:
    table = pa.table(COLUMNS)
    if into == ".parquet":  # pyarrow cannot cut structs of views into row groups
        table = table.drop_columns("deep view")
    path = write(tmp_path / f"in{into}", table)
    done = convert(path, tmp_path / f"out{out}", shards=3)
    found = read(done.files)
    assert found.schema.equals(table.schema)
    for name in table.column_names:
        assert repr(found[name].to_pylist()) == repr(table[name].to_pylist()), name
    order = Dataset(str(path), seed=1).shuffle()[:1500]
    done = convert(order, tmp_path / f"some{out}", shards=2)
    where = [int(r) for r in order.top.origin(_at(1500, len(order))).record]
    assert read(done.files)["u64"].to_pylist() == table["u64"].take(where).to_pylist()


def _at(n: int, length: int) -> Any:
    from pipeline.types import At

    return At.of_rows(np.arange(n), length)


def test_dictionaries_keep_their_values(tmp_path: Path) -> None:
    kinds = pa.array([f"k{i % 5}" for i in range(N)]).dictionary_encode()
    path = write(tmp_path / "in.parquet", pa.table({"kind": kinds}))
    for out, kind in ((".parquet", kinds.type), (".arrow", pa.string())):
        found = read(convert(path, tmp_path / f"out{out}").files)
        assert found["kind"].type == kind
        assert found["kind"].to_pylist() == kinds.to_pylist()


def test_files_that_differ_become_shards_that_do_not(tmp_path: Path) -> None:
    for k in range(3):
        ids = pa.array(range(3 * k, 3 * k + 3))
        pq.write_table(pa.table({"id": ids, "s": pa.array(["a"] * 3)}), tmp_path / f"in{k}.parquet")
    done = convert(f"{tmp_path}/in*.parquet", tmp_path / "out.parquet", shards=2)
    schemas = [pq.read_schema(file) for file in done.files]
    assert schemas[0].equals(schemas[1])
    assert read(done.files)["id"].to_pylist() == list(range(9))


def test_columns_of_a_bucket_keep_their_types(tmp_path: Path, gcs: Gcs) -> None:
    table = pa.table({k: COLUMNS[k] for k in ("i8", "moment", "decimal")})
    for into in (".parquet", ".arrow"):
        gcs.upload(write(tmp_path / f"in{into}", table))
        from pipeline.sources import open_path

        far = Dataset(open_path(f"{gcs.bucket}/in{into}", storage=gcs.storage()))
        found = read(convert(far, tmp_path / f"out{into[1:]}.parquet").files)
        assert found.equals(table)


def test_the_schema_is_that_of_all_rows(tmp_path: Path) -> None:
    def row(i: int) -> dict[str, Any]:
        late = {"late": "x"} if i >= 1500 else {}
        return {
            "id": i if i < 1200 else i + 0.5,
            "none": None,
            "list": [] if i < 1100 else [i],
        } | late

    done = convert(Dataset(range(2000)).map(row), tmp_path / "x.parquet", shards=4)
    schemas = [pq.read_schema(file) for file in done.files]
    assert all(schema.equals(schemas[0]) for schema in schemas)
    assert [str(field.type) for field in schemas[0]][:2] == ["double", "null"]
    assert read(done.files)["late"].to_pylist() == [None] * 1500 + ["x"] * 500
    done = convert({"note": [None] * 4 + ["x"] * 4}, tmp_path / "n.parquet", shards=2)
    assert [str(pq.read_schema(f).field("note").type) for f in done.files] == ["string"] * 2
    assert len(Dataset(f"{tmp_path}/n-*.parquet")) == 8


def test_rows_of_dates_maps_and_times_convert(tmp_path: Path) -> None:
    names = ["date", "time", "moment", "span", "map", "decimal", "struct", "null", "large"]
    path = write(tmp_path / "in.parquet", pa.table({k: COLUMNS[k] for k in names}))
    rows = Dataset(str(path)).map(lambda row: row, name="same")
    found = read(convert(rows, tmp_path / "out.parquet", shards=2).files)
    for name in ("date", "time", "span", "map", "decimal", "struct", "null", "large"):
        assert found[name].to_pylist() == COLUMNS[name].to_pylist(), name
    assert pa.types.is_map(found["map"].type)
    line = json.loads(
        Path(convert(rows, tmp_path / "out.jsonl").files[0]).read_text().split("\n")[1]
    )
    assert line["date"] == "2020-01-02"
    assert line["time"] == "01:00:00"
    assert line["moment"] == "1970-01-01T00:00:00.000001"
    assert (line["decimal"], line["span"], line["map"]) == ("0.25", 1, [["a", 1]])
    nat = Dataset({"t": np.array(["NaT", "2020-01-01"], "M8[s]")})
    assert read(convert(nat, tmp_path / "nat.arrow").files)["t"].null_count == 1


def test_arrays_of_a_shape_are_lists_of_a_size(tmp_path: Path) -> None:
    data = {"x": np.zeros((5, 3, 2), np.float32), "y": {"z": np.arange(5, dtype=np.uint8)}}
    done = convert(data, tmp_path / "x.parquet", shards=2)
    back = ParquetSource(list(done.files)).read(np.arange(5)).tree
    assert (back["x"].shape, back["x"].dtype, back["y"]["z"].dtype) == ((5, 3, 2), "f4", "u1")


def test_a_column_that_the_format_cannot_hold_is_named(tmp_path: Path) -> None:
    table = pa.table({"m": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    try:
        path = write(tmp_path / "in.arrow", table)
        Dataset(str(path))
    except SourceError:
        pytest.skip("no source reads intervals")
    with pytest.raises(ChainError, match=r"cannot hold column 'm' of type month_day_nano"):
        convert(path, tmp_path / "out.parquet")


@pytest.mark.long
def test_bad_groups_are_left_out_one_record_at_a_time(tmp_path: Path) -> None:
    table = pa.table({"id": range(3000)})
    path = tmp_path / "in.parquet"
    pq.write_table(table, path, row_group_size=1000, write_page_checksum=True, compression="none")
    start = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start + 200] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(RecordError):
        convert(path, tmp_path / "out.parquet")
    done = convert(path, tmp_path / "out.parquet", skip_bad=True)
    assert done.records + done.skipped == 3000
    assert done.records >= 2000
    assert {0, 999, 2000, 2999} <= set(read(done.files)["id"].to_pylist())


def test_what_does_not_open_is_not_done(tmp_path: Path) -> None:
    twice = Dataset([{"__key__": "a", "txt": "1"}, {"__key__": "a", "txt": "2"}])
    with pytest.raises(SourceError, match=r"2 records were written|does not open"):
        convert(twice, tmp_path / "x.tar")
    assert not (tmp_path / "x.tar.manifest.json").exists()


def test_a_join_of_columns_is_written_by_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "in.parquet", pa.table({"id": range(9)}))
    both = concatenate([Dataset(str(path)), Dataset(str(path))])
    assert read(convert(both, tmp_path / "out.parquet").files)["id"].to_pylist() == [*range(9)] * 2


def test_rows_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    row: Any = 1
    for _ in range(3000):
        row = [row]
    for out in ("x.jsonl", "x.parquet"):
        with pytest.raises(ChainError, match="--map"):
            convert(Dataset([0]).map(lambda _: {"deep": row}), tmp_path / out)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("out", ["out.parquet", "out.arrow"])
def test_old_timestamps_that_wrap_around_are_not_copied(
    tmp_path: Path, out: str, nested: bool
) -> None:
    kind = pa.struct([("x", pa.timestamp("us"))]) if nested else pa.timestamp("us")
    times = [datetime.datetime(9999 if i == 7 else 2020, 1, 1) for i in range(10)]
    values = pa.array([{"x": t} if nested else t for t in times], kind)
    path = tmp_path / "in.parquet"
    rows = pa.table({"t": values, "i": range(10)})
    pq.write_table(rows, path, use_deprecated_int96_timestamps=True)
    with pytest.raises(RecordError, match="column 't' of row 7 of"):
        convert(path, tmp_path / out)
    done = convert(path, tmp_path / f"good-{out}", skip_bad=True)
    assert read(done.files)["i"].to_pylist() == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    some = Dataset(ParquetSource(path, columns=["i"]))  # a column that is left out is not asked
    assert convert(some, tmp_path / f"some-{out}").records == 10
