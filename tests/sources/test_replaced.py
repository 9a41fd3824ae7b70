"""A local file that another of its size replaces while a run goes on is not read as the old."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset
from pipeline.errors import SourceError
from pipeline.sources import open_path
from pipeline.sources.storage import files
from tests.tools.inspection.formats import FORMATS


@pytest.fixture(params=list(FORMATS))
def path(request, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path / "cache"))
    suffix, write = FORMATS[request.param][:2]
    path = tmp_path / f"a{suffix}"
    write(path, range(100))
    return path


def replace(path, *, in_place=False):
    """Another file of the same size and name, in the middle of which a byte differs."""
    changed = path.stat().st_mtime_ns + 1
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    new = path if in_place else path.with_name("new")
    new.write_bytes(data)
    os.utime(new, ns=(1, changed))
    new.replace(path)


def test_a_file_of_the_same_size_is_noticed(path):
    source: Any = open_path(str(path))
    there, sent = pickle.loads(pickle.dumps(source)), pickle.dumps(source)
    source.read(np.array([0, 99]))
    replace(path)
    for late in (there, pickle.loads(sent)):
        with pytest.raises(SourceError, match=r"has changed .*been modified at .*Restore"):
            late.read(np.array([0, 99]))
    source.close()  # as when a file makes room for others: it is opened again by its name
    with pytest.raises(SourceError, match="has changed"):
        source.read(np.array([0, 99]))


def test_so_is_one_that_is_written_over_an_open_one(path):
    source = open_path(str(path))
    source.read(np.array([0, 99]))
    replace(path, in_place=True)
    with pytest.raises(SourceError, match="has changed"):
        source.read(np.array([50]))  # of another row group, as those of before are in memory


def test_bad_records_are_not_skipped_for_it(path):
    ds = Dataset(str(path)).on_error("skip")
    replace(path)
    with pytest.raises(SourceError, match="has changed"):
        ds.read(np.array([0, 99]))


def test_a_copy_on_another_machine_may_have_another_time(path, monkeypatch):
    source = open_path(str(path))
    sent, expected = pickle.dumps(source), source.read(np.array([7]))
    os.utime(path, ns=(1, 1))
    monkeypatch.setattr(files, "machine", lambda: "another")
    found = pickle.loads(sent).read(np.array([7]))
    assert pickle.dumps(found) == pickle.dumps(expected)
