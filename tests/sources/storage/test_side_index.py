"""Side indexes: kept once, built again when the file or the index is not what it was."""

from __future__ import annotations

import logging
import multiprocessing
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.sources.storage import side_index
from pipeline.sources.storage.side_index import cache_folder, indexed
from pipeline.sources.storage.storage import Stat, Storage


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("LOCKSTEP_CACHE", str(folder))
    monkeypatch.setattr(side_index, "_SMALL", 0)
    return folder


class Builder:
    def __init__(self):
        self.calls = 0

    def __call__(self, stat, storage):
        self.calls += 1
        data = np.frombuffer(Path(stat.path).read_bytes(), np.uint8)
        return {"values": data, "none": np.zeros(0, np.int64), "wide": np.ones((2, 3), "<i2")}


def write(folder, data=b"abc"):
    path = folder / "file"
    path.write_bytes(data)
    return Stat(str(path), len(data))


def kept(cache):
    (path,) = (cache / "index").iterdir()
    return path


def test_an_index_is_built_once(tmp_path, cache):
    build, stat = Builder(), write(tmp_path)
    first, second = (indexed(stat, Storage(), "k", build) for _ in range(2))
    assert build.calls == 1
    for name, a in first.items():
        assert (a.dtype, a.tolist()) == (second[name].dtype, second[name].tolist())
        assert not a.flags.writeable
        assert not second[name].flags.writeable
    indexed(stat, Storage(), "other", build)
    assert build.calls == 2


def test_small_files_leave_nothing(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(side_index, "_SMALL", 4)
    indexed(write(tmp_path), Storage(), "k", Builder())
    assert not cache.exists()


def test_a_changed_file_is_indexed_anew_in_the_same_place(tmp_path, cache):
    build, stat = Builder(), write(tmp_path)
    indexed(stat, Storage(), "k", build)
    stat = write(tmp_path, b"abcd")
    assert indexed(stat, Storage(), "k", build)["values"].tolist() == list(b"abcd")
    os.utime(stat.path, ns=(1, 1))
    Path(stat.path).write_bytes(b"wxyz")
    assert indexed(stat, Storage(), "k", build)["values"].tolist() == list(b"wxyz")
    assert build.calls == 3
    assert kept(cache)


def test_a_damaged_index_is_built_anew(tmp_path, cache):
    build, stat = Builder(), write(tmp_path)
    indexed(stat, Storage(), "k", build)
    whole = kept(cache).read_bytes()
    spoiled = [b"", whole[:10], whole[:-1], whole + b"x", whole[::-1], b"x" + whole[1:]]
    for at in range(len(whole)):
        spoiled.append(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    for data in spoiled:
        kept(cache).write_bytes(data)
        assert indexed(stat, Storage(), "k", build)["values"].tolist() == list(b"abc")
    gaps = whole.count(0)  # a bit in what only aligns the arrays does no harm
    assert build.calls > len(spoiled) - gaps


def _again(stat):
    assert indexed(stat, Storage(), "k", Builder())["values"].tolist() == list(b"abc")


def test_processes_may_build_at_once_and_a_killed_ones_rest_is_swept(tmp_path, cache):
    stat = write(tmp_path)
    indexed(stat, Storage(), "k", Builder())
    old = kept(cache).with_name(kept(cache).name + ".1.1.part")
    young = kept(cache).with_name(kept(cache).name + ".2.2.part")
    young.write_bytes(b"")
    old.write_bytes(b"")
    os.utime(old, (1, 1))
    os.utime(stat.path, ns=(5, 5))
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_again, args=(stat,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert not old.exists()
    young.unlink()
    assert kept(cache)


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path, cache, caplog):
    cache.write_bytes(b"a file, no folder")
    with caplog.at_level(logging.WARNING, "pipeline"):
        found = indexed(write(tmp_path), Storage(), "k", Builder())
    assert found["values"].tolist() == list(b"abc")
    assert "Set LOCKSTEP_CACHE" in caplog.text


@pytest.mark.parametrize("how", ["private", "linked", "open"])
def test_without_a_home_indexes_are_kept_where_nobody_else_may_write(
    tmp_path, monkeypatch, caplog, how
):
    temporary = tmp_path / "tmp"
    mine = temporary / f"lockstep-{os.getuid()}"
    temporary.mkdir()
    (tmp_path / "home").write_bytes(b"a file, no folder")
    monkeypatch.delenv("LOCKSTEP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    if how == "linked":
        (tmp_path / "other").mkdir()
        mine.symlink_to(tmp_path / "other")
    elif how == "open":
        mine.mkdir()
        mine.chmod(0o777)
    stat, build = write(tmp_path), Builder()
    for _ in range(2):
        assert indexed(stat, Storage(), "k", build)["values"].tolist() == list(b"abc")
    assert build.calls == (1 if how == "private" else 2)
    assert ("Set LOCKSTEP_CACHE" in caplog.text) == (how != "private")
    if how != "private":
        assert not list(mine.iterdir())


def test_where_side_files_are_kept(monkeypatch):
    assert cache_folder(Storage()) == os.environ["LOCKSTEP_CACHE"]
    assert cache_folder(Storage(cache="/own")) == "/own"
    monkeypatch.delenv("LOCKSTEP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache_folder(Storage()) == "/c/lockstep"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert cache_folder(Storage()) == "/h/.cache/lockstep"


def test_indexes_stay_within_the_size_of_the_cache(tmp_path, cache, monkeypatch):
    storage = Storage(cache_size=20_000)
    for i in range(60):
        path = tmp_path / f"file-{i}"
        path.write_bytes(b"x" * 500)
        build = Builder()
        indexed(Stat(str(path), 500), storage, "k", build)
        # the last one is there, whatever went
        indexed(Stat(str(path), 500), storage, "k", build)
        assert build.calls == 1
    sizes = [path.stat().st_size for path in (cache / "index").iterdir()]
    assert 3 < len(sizes) < 50
    assert sum(sizes) <= 20_000 * 17 / 16 + max(sizes)


def test_an_index_that_is_cut_while_in_use_never_kills_the_process(tmp_path, cache, monkeypatch):
    from pipeline.errors import SourceError
    from pipeline.sources.storage import arrays

    monkeypatch.setattr(arrays, "_IN_MEMORY", 100)
    monkeypatch.setattr(arrays, "_SMALL", 100)
    stat = write(tmp_path, bytes(range(250)) * 40)
    indexed(stat, Storage(), "k", Builder())
    found = indexed(stat, Storage(), "k", Builder())["values"]
    assert found[np.array([9999])].tolist() == [249]
    os.truncate(kept(cache), 1000)
    with pytest.raises(SourceError, match="was cut while it was in use"):
        found[np.array([9999])]
    build = Builder()
    assert indexed(stat, Storage(), "k", build)["values"][:3].tolist() == [0, 1, 2]
    assert build.calls == 1
