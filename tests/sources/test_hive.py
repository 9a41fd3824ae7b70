"""Columns from the names of folders: as pyarrow reads them, and what cannot be is said."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from pipeline import Dataset, ParquetSource
from pipeline.debug.conformance import check_source
from pipeline.errors import SourceError
from pipeline.tools.convert import convert

ROWS = 24


def write(tmp_path, *folders):
    for i, folder in enumerate(folders):
        (tmp_path / folder).mkdir(parents=True)
        ids = np.arange(i * ROWS, (i + 1) * ROWS)
        rows = {"id": ids, "s": [{"a": k, "b": str(k)} for k in ids]}
        pq.write_table(pa.table(rows), tmp_path / folder / "0.parquet", row_group_size=10)
    return f"{tmp_path}/**/*.parquet"


@pytest.mark.parametrize(
    "folders",
    [
        ["y=1", "y=20"],
        ["y=01/lang=en", "y=-2/lang=de"],
        ["y=1", "y=x"],
        ["y=1", "y=3000000000"],
        ["y=1.5", "y=+1"],
        ["y=", "y=1=2"],
        ["y=a%20b%2Fc", "y=%C3%A9 é"],
        ["y%20k=1", "y%20k=2"],
        ["n=__HIVE_DEFAULT_PARTITION__", "n=x"],
    ],
    ids=str,
)
def test_values_are_those_of_pyarrow(tmp_path, folders):
    source = ParquetSource(write(tmp_path, *folders), hive=True)
    theirs = pyarrow.dataset.dataset(tmp_path, partitioning="hive").to_table()
    assert {f.name: f.type for f in source.fields.schema} == {
        f.name: f.type for f in theirs.schema
    } | {"s": source.fields.schema.field("s").type}
    rows = sorted(Dataset(source).read(np.arange(len(source))).rows(), key=lambda row: row["id"])
    assert rows == sorted(theirs.to_pylist(), key=lambda row: row["id"])
    check_source(source, samples=8)


@pytest.mark.parametrize("columns", [["y"], ["lang", "s.b", "y"], ["y", "id"], ["s.b", "s.a"]])
def test_columns_are_chosen_from_files_and_folders(tmp_path, columns):
    pattern = write(tmp_path, "y=1/lang=en", "y=2/lang=de")
    source = pickle.loads(pickle.dumps(ParquetSource(pattern, columns, hive=True)))
    found = source.read(np.array([ROWS, 3])).tree
    every = {"y": [2, 1], "lang": ["de", "en"], "id": [ROWS, 3], "s.b": [str(ROWS), "3"]}
    for name in columns:
        got = found["s"][name[2:]] if name.startswith("s.") else found[name]
        assert got.tolist() == every.get(name, [ROWS, 3])
    assert list(found) == list(dict.fromkeys(name.partition(".")[0] for name in columns))


def test_nulls_of_numbers_are_read_as_other_nulls_are(tmp_path):
    pattern = write(tmp_path, "y=1", "y=__HIVE_DEFAULT_PARTITION__")
    found = ParquetSource(pattern, ["y"], hive=True, nulls="float").read(np.array([0, ROWS]))
    assert found.tree["y"].tolist()[0] == 1
    assert np.isnan(found.tree["y"][1])


def test_what_folders_say_is_in_the_fingerprint_only_where_it_is_read(tmp_path):
    pattern = write(tmp_path / "a", "y=1", "y=2")
    plain = ParquetSource(pattern).fingerprint()
    hive = ParquetSource(pattern, hive=["y"]).fingerprint()
    assert ParquetSource(pattern, hive=[]).fingerprint() == plain != hive
    (tmp_path / "a/y=2").rename(tmp_path / "a/y=3")
    assert ParquetSource(pattern).fingerprint() == plain
    assert ParquetSource(pattern, hive=["y"]).fingerprint() not in (plain, hive)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".jsonl"])
def test_conversions_keep_the_columns_of_folders(tmp_path, suffix):
    pattern = write(tmp_path / "in", "y=1/lang=en", "y=__HIVE_DEFAULT_PARTITION__/lang=de e")
    for columns in (["lang", "id"], ["lang"]):
        ds = Dataset(ParquetSource(pattern, columns, hive=True))
        out = f"{tmp_path}/{len(columns)}{suffix}"
        convert(ds, out)
        assert [dict(row) for row in Dataset(out)] == [dict(row) for row in ds]


@pytest.mark.parametrize(
    ("hive", "message"),
    [
        ("y", r"give True, or a list .*\['y'\]"),
        (["z"], "no folder of .* is named z="),
        (True, r"'id'.* in the names of its folders.*hive=\['y'\]"),
        (["id"], r"'id'.* in the names of its folders.*Leave hive= out"),
    ],
)
def test_what_cannot_be_is_said(tmp_path, hive, message):
    with pytest.raises(SourceError, match=message):
        ParquetSource(write(tmp_path, "y=1/id=7", "y=2/id=8"), hive=hive)


def test_folders_must_all_say_it(tmp_path):
    pattern = write(tmp_path, "y=1", "other")
    with pytest.raises(SourceError, match=r"other/0.parquet is named y=.*Narrow the paths"):
        ParquetSource(pattern, hive=True)
    with pytest.raises(SourceError, match="has a name such as year=2024"):
        ParquetSource(f"{tmp_path}/other/*.parquet", hive=True)


@pytest.mark.parametrize("name", ["_metadata", "_common_metadata"])
def test_a_summary_of_files_is_no_file_of_rows(tmp_path, name):
    write(tmp_path, "y=1")
    collected = []
    pq.write_table(pa.table({"v": [1]}), tmp_path / "y=1/1.parquet", metadata_collector=collected)
    collected[0].set_file_path("y=1/1.parquet")
    pq.write_metadata(collected[0].schema.to_arrow_schema(), tmp_path / name, collected)
    with pytest.raises(SourceError, match=rf"{name}: it only describes other files.*remove it"):
        ParquetSource(f"{tmp_path}/_*")


def test_a_column_that_only_folders_name_is_told_of(tmp_path):
    pattern = write(tmp_path, "y=1", "y=2")
    with pytest.raises(SourceError, match=r"no column \['y'\], but folders .*hive=True"):
        ParquetSource(pattern, ["id", "y"])
