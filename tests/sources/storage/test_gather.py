"""Many spans of many files: any order, overlapping, nested, empty, near and far."""

from __future__ import annotations

import os

import numpy as np
import pytest

from pipeline.sources.storage.files import Files
from pipeline.sources.storage.gather import read_spans
from pipeline.sources.storage.storage import Storage


@pytest.fixture
def contents():
    rng = np.random.default_rng(0)
    return [rng.bytes(size) for size in (30_000, 1, 100_000, 0, 7)]


@pytest.fixture(params=["local", "memory", "both"])
def files(request, tmp_path, contents):
    paths = []
    for i, data in enumerate(contents):
        url = f"memory://gather-{tmp_path.name}/{i}"
        if request.param == "local" or (request.param == "both" and i % 2):
            url = str(tmp_path / str(i))
        Storage().write(url, data) if "://" in url else (tmp_path / str(i)).write_bytes(data)
        paths.append(url)
    return Files.counted(paths, lambda stat: 1, empty=True)


def check(files, contents, file, start, stop):
    got = read_spans(files, *(np.array(a, np.int64) for a in (file, start, stop)))
    assert got == [contents[f][a:b] for f, a, b in zip(file, start, stop, strict=True)]


@pytest.mark.parametrize("seed", range(5))
def test_any_spans(files, contents, seed):
    rng = np.random.default_rng(seed)
    file = rng.integers(len(contents), size=60)
    sizes = np.array([len(data) for data in contents])[file]
    ends = np.sort(rng.integers(0, sizes[:, None] + 1, size=(60, 2)), axis=1)
    near = rng.random(60) < 0.7
    ends[near, 1] = np.minimum(ends[near, 1], ends[near, 0] + 50)
    check(files, contents, file.tolist(), ends[:, 0].tolist(), ends[:, 1].tolist())


def test_a_span_within_another_does_not_end_it(files, contents):
    check(files, contents, [2] * 3, [0, 10, 60_000], [90_000, 20, 70_000])


def test_ends_of_files_do_not_run_together(files, contents):
    check(files, contents, [0, 1, 2, 4], [29_990, 0, 0, 0], [30_000, 1, 10, 7])


def test_the_kernel_may_give_less_than_was_asked_for(files, contents, monkeypatch):
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: pread(fd, min(n, 1_000), at))
    check(files, contents, [0, 2], [0, 100], [30_000, 90_000])
    ranges = [files.stat(0).range(0, 30_000), files.stat(2).range(100, 90_000)]
    assert files.storage.read(ranges) == [contents[0], contents[2][100:90_000]]


def test_none(files):
    none = np.zeros(0, np.int64)
    assert read_spans(files, none, none, none) == []
