"""ParquetSource over URLs: which ranges it asks for, and that faults on the way change nothing."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from urllib.parse import unquote

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.debug.conformance import check_source
from pipeline.errors import SourceError
from pipeline.sources import parquet_footer
from pipeline.sources.parquet import ParquetSource
from tests.tables import check_rows, table


def uploaded(gcs, folder, counts, rows=64):
    urls, start = [], 0
    for k, n in enumerate(counts):
        path = folder / f"{k}.parquet"
        pq.write_table(table(start, n), path, row_group_size=rows)
        urls.append(gcs.upload(path))
        start += n
    return urls


def ranges(gcs):
    """(object, first byte, byte after the last) of each read since `gcs.forget()`.

    A look for a manifest is none.
    """
    asked = [(path, re.match(r"bytes=(\d+)-(\d+)$", span)) for _, path, span in gcs.log()]
    asked = [(path, span) for path, span in asked if "manifest" not in path]
    names = [unquote(path).rpartition("/")[2][:9] for path, _ in asked]
    return sorted(
        (name, int(m[1]), int(m[2]) + 1) for name, (_, m) in zip(names, asked, strict=True) if m
    )


def test_keeps_what_a_source_promises_over_gs(tmp_path, gcs):
    source = ParquetSource(uploaded(gcs, tmp_path, [100, 0, 1, 99]), storage=gcs.storage())
    check_source(source, samples=8)
    check_rows(source, np.random.default_rng(0).permutation(200))


def test_keeps_what_a_source_promises_in_memory(tmp_path):
    pq.write_table(table(0, 100), tmp_path / "a.parquet", row_group_size=30)
    memory = fsspec.filesystem("memory")
    memory.pipe("/parquet/a.parquet", (tmp_path / "a.parquet").read_bytes())
    source = ParquetSource("memory://parquet/a.parquet", cache_bytes=0)
    check_source(source, samples=16)
    check_rows(source, np.arange(100)[::-1])


def test_opening_is_one_read_a_file_and_reading_one_a_column_chunk(tmp_path, gcs):
    urls = uploaded(gcs, tmp_path, [200, 200])
    gcs.forget()
    source = ParquetSource(urls, ["id", "text"], storage=gcs.storage(gap=0))
    assert [name for name, _, _ in ranges(gcs)] == ["0.parquet", "1.parquet"]
    gcs.forget()
    check = source.read(np.array([330, 0, 70, 1])).tree["id"].tolist()
    assert check == [330, 0, 70, 1]
    wanted = []
    for name, groups in (("0.parquet", (0, 1)), ("1.parquet", (2,))):
        metadata = pq.read_metadata(tmp_path / name)
        for group in groups:
            first, last = (metadata.row_group(group).column(c) for c in (0, 2))
            wanted.append((name, first.dictionary_page_offset))
            wanted.append((name, last.dictionary_page_offset))
    asked = ranges(gcs)
    assert [(name, start) for name, start, _ in asked] == sorted(wanted)
    bytes_asked = sum(stop - start for _, start, stop in asked)
    assert bytes_asked < 0.5 * 3 / 8 * sum(p.stat().st_size for p in tmp_path.iterdir())


def test_a_footer_longer_than_the_first_read(tmp_path, gcs):
    columns = {f"column {i}": np.arange(6) for i in range(300)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=2)
    url = gcs.upload(tmp_path / "a.parquet")
    gcs.forget()
    source = ParquetSource(url, ["column 7"], storage=gcs.storage())
    (_, _, size), (_, first, _) = sorted(ranges(gcs), key=lambda r: -r[1])
    assert size - first > parquet_footer._TAIL
    assert source.read(np.array([5, 0])).tree["column 7"].tolist() == [5, 0]


def test_faults_on_the_way_change_nothing(tmp_path, gcs):
    urls = uploaded(gcs, tmp_path, [300, 300])
    gcs.faults(
        {"kind": "status", "status": 503, "rate": 0.2, "seed": 1},
        {"kind": "drop", "rate": 0.05, "seed": 2},
    )
    source = ParquetSource(urls, storage=gcs.storage(gap=0))
    check_rows(source, np.random.default_rng(1).permutation(600))


def test_an_object_replaced_while_it_is_read_is_named(tmp_path, gcs):
    url = uploaded(gcs, tmp_path, [200])[0]
    source = ParquetSource(url, storage=gcs.storage(), cache_bytes=0)
    check_rows(source, [0])
    pq.write_table(table(7, 200), tmp_path / "0.parquet", row_group_size=64)
    gcs.upload(tmp_path / "0.parquet")
    with pytest.raises(SourceError, match=r"0\.parquet has changed since"):
        source.read(np.array([150]))


def test_pickles_read_the_same_in_another_process(tmp_path, gcs):
    source = ParquetSource(uploaded(gcs, tmp_path, [50, 50]), ["id"], storage=gcs.storage())
    code = (
        "import pickle, sys, numpy as np; s = pickle.load(sys.stdin.buffer);"
        "sys.stdout.buffer.write(pickle.dumps(s.read(np.arange(99, -1, -1)).tree['id'].tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(source), capture_output=True, check=True
    )
    assert pickle.loads(done.stdout) == list(range(99, -1, -1))
