"""Which files paths name, and which format a path has."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from pipeline.errors import SourceError
from pipeline.sources import ArrayRecordSource, ParquetSource, open_path
from pipeline.sources.storage.files import Paths
from pipeline.sources.storage.files import expand as found


def expand(paths: Paths) -> tuple[str, ...]:
    return tuple(stat.path for stat in found(paths))


def touch(folder, *names):
    for name in names:
        (folder / name).write_text("x")
    return [str(folder / name) for name in names]


def test_globs_are_sorted_and_explicit_order_is_kept(tmp_path):
    b, a, c = touch(tmp_path, "b.x", "a.x", "c.y")
    (tmp_path / "d.x").mkdir()
    assert expand(str(tmp_path / "*.x")) == (a, b)
    assert expand([b, a, tmp_path / "c.y"]) == (b, a, c)
    assert expand([c, str(tmp_path / "*.x"), c]) == (c, a, b, c)
    assert expand(tmp_path / "?.y") == (c,)


def test_a_name_may_hold_brackets(tmp_path):
    (path,) = touch(tmp_path, "a[1].x")
    assert expand(path) == (path,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("*.none", r"no file matches the pattern '.*\*\.none'"),
        ("missing", r"missing does not exist"),
        ("", r"is a directory. Name its files with a glob: '.*\*'"),
    ],
)
def test_what_names_no_file_says_so(tmp_path, name, message):
    with pytest.raises(SourceError, match=message):
        expand(str(tmp_path / name))


def test_nothing_is_refused():
    with pytest.raises(SourceError, match="names no file"):
        expand([])


def test_the_suffix_decides(tmp_path):
    for name in ("a.array_record-00000-of-00002", "a.array_record-00001-of-00002"):
        writer = ArrayRecordWriter(str(tmp_path / name), "group_size:1")
        writer.write(b"a")
        writer.close()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "b.parquet")
    source = open_path(str(tmp_path / "a.array_record*"))
    assert isinstance(source, ArrayRecordSource)
    assert len(source) == 2
    assert isinstance(open_path(tmp_path / "b.parquet"), ParquetSource)
    with pytest.raises(SourceError, match=r"several formats, such as a\.array.* and b\.parquet"):
        open_path(str(tmp_path / "*"))
    touch(tmp_path, "c.csv")
    with pytest.raises(SourceError, match=r"'\.csv'; known are \.array_record, .*\.parquet"):
        open_path(str(tmp_path / "*.csv"))


def test_importing_sources_opens_no_format():
    code = (
        "import pipeline.sources, sys;"
        "assert not {'pyarrow', 'array_record', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
