"""Every format keeps what a source promises: any length, many files, URLs, other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cloudpickle
import fsspec
import numpy as np
import pytest

from pipeline import Dataset, Loader
from pipeline.block import Columns
from pipeline.debug.conformance import check_source, same
from pipeline.debug.digest import digest
from pipeline.errors import SourceError
from pipeline.sources.storage import side_index
from tests.tools.inspection.formats import FORMATS as INSPECTED
from tests.writers import FORMATS

COUNTS = {
    "none": [0],
    "one": [1],
    "two": [2],
    "1000": [1000],
    "50 files": [3, 0, 1, *([4] * 46), 0],
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def rows(source, indices):
    got = source.read(np.asarray(indices, np.int64))
    return got.rows() if isinstance(got, Columns) else got


def check_records(form, source, indices):
    for i, record in zip(indices, rows(source, indices), strict=True):
        assert same(record, form.record(int(i))), f"record {i} is {record!r}"


@pytest.mark.parametrize("counts", list(COUNTS.values()), ids=list(COUNTS))
@pytest.mark.parametrize("name", list(FORMATS))
def test_keeps_what_a_source_promises(tmp_path, name, counts):
    form = FORMATS[name]
    source = form.open(form.files(tmp_path, counts))
    assert len(source) == sum(counts)
    check_source(source, samples=16)
    check_records(form, source, np.arange(len(source)))
    assert source.chunk_bounds.tolist() == [0, *np.cumsum(counts).tolist()]
    assert [fact["records"] for fact in source.layout()] == counts


@pytest.mark.long
@pytest.mark.parametrize("name", list(FORMATS))
def test_many_records(tmp_path, name):
    form, n = FORMATS[name], 100_000
    if name == "token rows":
        n = 60_000  # what uint16 can number
    source = form.open(form.files(tmp_path, [n]))
    check_source(source, samples=64)
    rng = np.random.default_rng(0)
    for some in (rng.permutation(n)[:500], np.arange(500, 700), rng.integers(0, 50, 200)):
        check_records(form, source, some)


@pytest.mark.parametrize("name", list(FORMATS))
def test_over_a_url(tmp_path, cache, gcs, name):
    form = FORMATS[name]
    paths = form.files(tmp_path, [5, 40])
    for path in tmp_path.glob("*.*"):
        gcs.upload(path)
    urls = [f"{gcs.bucket}/{Path(path).name}" for path in paths]
    gcs.faults({"kind": "status", "status": 503, "rate": 0.05})
    storage, local = gcs.storage(cache=""), form.open(paths)
    source = form.open(urls, storage=storage)
    assert source.fingerprint() == local.fingerprint()
    check_records(form, source, [44, 0, 7, 7, 4, 5])
    assert source.where(np.array([5])) == [(urls[1], 0)]
    assert cloudpickle.loads(cloudpickle.dumps(source)).fingerprint() == local.fingerprint()
    gcs.upload(form.files(tmp_path, [6])[0])
    with pytest.raises(SourceError, match="changed since"):
        source.read(np.arange(5))


def test_an_empty_file_may_be_remote(tmp_path, cache):
    store = fsspec.filesystem("memory")
    for name, form in FORMATS.items():
        (tmp_path / name).mkdir()
        paths = form.files(tmp_path / name, [0, 3])
        head = f"memory://{name.replace(' ', '-')}"
        for path in (tmp_path / name).iterdir():
            store.pipe(f"{head}/{path.name}", path.read_bytes())
        source = form.open([f"{head}/{Path(path).name}" for path in paths])
        check_records(form, source, [2, 0, 1])
        assert source.fingerprint() == form.open(paths).fingerprint()
        store.rm(head, recursive=True)


def test_no_bytes_are_asked_for_twice(tmp_path, cache, gcs):
    for name, form in FORMATS.items():
        (tmp_path / name).mkdir()
        (path,) = form.files(tmp_path / name, [5000])
        for part in (tmp_path / name).iterdir():
            gcs.upload(part)
        source = form.open(f"{gcs.bucket}/{Path(path).name}", storage=gcs.storage(gap=0))
        source.read(np.array([0]))
        gcs.forget()
        source.read(np.arange(0, 5000, 100))
        asked = [how for _, _, how in gcs.log() if how]
        assert len(asked) == len(set(asked)) <= 100, name


_ELSEWHERE = """
import sys, cloudpickle
from pipeline.debug.digest import digest
for source, some in cloudpickle.load(sys.stdin.buffer):
    got = source.read(some)
    print(digest(getattr(got, "rows", lambda: got)()))
"""


def test_pickled_copies_read_the_same_in_another_process(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(side_index, "_SMALL", 0)
    some = np.array([17, 3, 3, 29, 0])
    sources = []
    for name, form in FORMATS.items():
        (tmp_path / name).mkdir()
        sources.append(form.open(form.files(tmp_path / name, [10, 20])))
        assert len(cloudpickle.dumps(sources[-1])) < 3000
    data = cloudpickle.dumps([(source, some) for source in sources])
    command = [sys.executable, "-c", _ELSEWHERE]
    there = subprocess.run(command, input=data, capture_output=True, check=True).stdout
    assert there.decode().split() == [digest(rows(source, some)) for source in sources]


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_path_is_enough_and_a_change_is_noticed(tmp_path, name):
    form = FORMATS[name]
    (path,) = form.files(tmp_path, [7])
    source = form.open(path)
    assert len(list(Dataset(source))) == 7
    before = source.fingerprint()
    form.write(Path(path), range(1, 9))
    assert form.open(path).fingerprint() != before
    with pytest.raises(Exception, match="has changed since its records were counted"):
        source.read(np.array([0]))
    Path(path).unlink()
    with pytest.raises(Exception, match="No such file"):
        source.read(np.array([0]))


_NAMES = ["a b#%20?", "a\nb", "日\x1b[31m", os.fsdecode(b"\xff\xfe"), "C:\\d\\a", "a[1]*{b,c}@3::d"]


@pytest.mark.parametrize("name", list(INSPECTED))
def test_a_file_may_have_any_name(tmp_path, monkeypatch, name):
    suffix, write, *_ = INSPECTED[name]
    monkeypatch.chdir(tmp_path)
    expected = None
    for odd in _NAMES:
        write(tmp_path / f"plain{suffix}", range(10))
        for file in tmp_path.glob("plain.*"):
            file.rename(tmp_path / (odd + file.suffix))
        for ds in (Dataset(odd + suffix), Dataset(str(tmp_path / (odd + suffix)))):
            found = repr(list(ds))
            expected = expected or found
            assert found == expected
            assert len(Loader(ds, 10, collate=len).where(0)) == 10
