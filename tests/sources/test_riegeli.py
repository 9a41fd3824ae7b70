"""Our reader of the Riegeli layout beside the native one: byte for byte, at every option."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from pipeline.debug.conformance import check_source
from pipeline.errors import SourceError
from pipeline.sources.array_record import ArrayRecordSource
from pipeline.sources.riegeli import native, varints
from pipeline.sources.riegeli.index import Index, read_indexes
from pipeline.sources.storage.storage import Range, Storage

RNG = np.random.default_rng(0)
SIZES = [0, 1, 0, 0, 70_000, 5, 1_300_000, 2, 65_472, 65_536, *RNG.integers(0, 900, 500), 200_000]
RECORDS = [RNG.integers(0, 50, n).astype(np.uint8).tobytes() for n in SIZES]


def write(path, records, options):
    writer = ArrayRecordWriter(str(path), options)
    for r in records:
        writer.write(r)
    writer.close()
    return str(path)


def index_of(path):
    index = read_indexes([Storage().stat(path)], Storage())[0]
    assert isinstance(index, Index)
    return index


def far(path):
    """The file under a URL: our reader reads those, the native one local files."""
    url = f"memory://riegeli{path}"
    Storage().write(url, Path(path).read_bytes())
    return url


@pytest.fixture
def only_ours(monkeypatch):
    """The native reader must not come in."""

    def refuse(*args):
        raise AssertionError("the native reader was asked")

    monkeypatch.setattr(native, "_reader", refuse)


CODECS = ["zstd:1", "zstd:6", "brotli:1", "snappy", "uncompressed", "zstd:3,window_log:24"]


@pytest.mark.parametrize("group", [1, 2, 1000])
@pytest.mark.parametrize("codec", CODECS)
def test_equals_the_native_reader(tmp_path, codec, group, only_ours):
    path = write(tmp_path / "a.array_record", RECORDS, f"group_size:{group},{codec}")
    theirs = ArrayRecordReader(path).read_all()
    source = ArrayRecordSource(far(path))
    assert theirs == RECORDS
    assert source.read(np.arange(len(RECORDS))) == RECORDS
    for k in (1, 7, 300):
        wanted = RNG.integers(0, len(RECORDS), k)
        assert source.read(wanted) == [RECORDS[i] for i in wanted]
    assert [source.read(np.array([i]))[0] for i in range(12)] == RECORDS[:12]


@pytest.mark.parametrize("options", ["group_size:1", "group_size:1000,pad_to_block_boundary:true"])
def test_100_000_records(tmp_path, options, only_ours):
    rows = [b"%d" % i * (i % 5) for i in range(100_000)]
    source = ArrayRecordSource(far(write(tmp_path / "a", rows, options)))
    assert source.read(np.arange(100_000)) == rows
    shuffled = np.random.default_rng(1).permutation(100_000)
    assert source.read(shuffled) == [rows[i] for i in shuffled]
    check_source(source, samples=30)


def test_padded_records(tmp_path, only_ours):
    rows = [*RECORDS[:5], *RECORDS[8:20]]
    path = write(tmp_path / "a", rows, "group_size:3,pad_to_block_boundary:true")
    assert ArrayRecordSource(far(path)).read(np.arange(len(rows))) == rows


@pytest.mark.parametrize("n", [1, 5, 500])
def test_transposed_files_go_through_the_native_reader(tmp_path, n):
    path = write(tmp_path / "a", RECORDS[:n], "group_size:4,transpose:true")
    source = ArrayRecordSource([path, write(tmp_path / "b", RECORDS[:3], "group_size:1")])
    wanted = RNG.integers(0, n + 3, 40)
    assert source.read(wanted) == [(RECORDS[:n] + RECORDS[:3])[i] for i in wanted]
    assert source.layout()[0]["transposed"]


def test_older_writers_did_not_say_that_a_file_is_transposed(tmp_path):
    path = write(tmp_path / "a", RECORDS[:50], "group_size:4,transpose:true")
    storage = Storage(cache=str(tmp_path / "cache"))
    source = ArrayRecordSource(far(path), storage=storage)
    shards = source._reading._shards
    shards._known[0] = index_of(path)._replace(options="")
    assert source.read(np.arange(50)) == RECORDS[:50]
    assert shards._native == {0}


class Counting(Storage):
    """Counts the calls that need a round trip."""

    calls: list[list[Range]]

    def read(self, ranges):
        self.calls.append(list(ranges))
        return super().read(ranges)


def counting():
    storage = Counting()
    object.__setattr__(storage, "calls", [])
    return storage


@pytest.mark.parametrize(("n", "requests"), [(0, 1), (1000, 1), (200_000, 2)])
def test_an_index_takes_two_requests_at_most(tmp_path, n, requests):
    path = write(tmp_path / "a", [os.urandom(8)] * n, "group_size:1")
    storage = counting()
    found = read_indexes([storage.stat(path)], storage)[0]
    assert isinstance(found, Index)
    assert (found.records, len(found.offsets)) == (n, n + 1)
    assert len([c for c in storage.calls if c]) == requests


def test_an_index_survives_bytes_and_damage_does_not(tmp_path):
    path = write(tmp_path / "a", RECORDS[:50], "group_size:3")
    index = index_of(path)
    data = index.to_bytes()
    again = Index.from_bytes(data)
    assert again is not None
    assert again.offsets.tolist() == index.offsets.tolist()
    assert again[:2] + again[3:] == index[:2] + index[3:]
    for bad in (b"", data[: len(data) // 2], data[:200] + bytes(8) + data[208:], b"text" * 99):
        assert Index.from_bytes(bad) is None


@pytest.mark.parametrize("url", [False, True])
def test_a_damaged_index_names_its_file(tmp_path, url):
    path = write(tmp_path / "a", RECORDS[:50], "group_size:1")
    whole = Path(path).read_bytes()
    footer = int(index_of(path).offsets[-1])
    wrong = unseen = unnamed = 0
    for at in range(footer + footer % 2, footer + 400, 13):
        Path(path).write_bytes(whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :])
        try:
            rows = ArrayRecordSource(far(path) if url else path).read(np.arange(50))
        except SourceError as e:
            unnamed += "/a" not in str(e)
            continue
        unseen += 1
        wrong += rows != RECORDS[:50]
    assert not wrong + unnamed
    assert unseen == 0 or url  # without checksums what is harmless is not seen


def test_layout_tells_codec_groups_and_advice(tmp_path):
    paths = [
        write(tmp_path / "a", RECORDS[:50], "group_size:1,brotli:1"),
        write(tmp_path / "b", RECORDS[:50], "group_size:20,uncompressed"),
        write(tmp_path / "c", [], "group_size:1"),
    ]
    one, many, none = ArrayRecordSource(paths).layout()
    assert (one["codec"], one["group_size"], one["chunks"]) == ("brotli", 1, 50)
    assert (many["codec"], many["group_size"], many["chunks"]) == ("none", 20, 3)
    assert many["decoded_bytes"] == sum(map(len, RECORDS[:50]))
    assert many["bytes"] == os.path.getsize(paths[1])
    assert one["advice"] == ["one record a group: fine for random access"]
    assert "a record read alone costs its whole group" in many["advice"][0]
    assert (none["records"], none["chunks"], none["chunk_bytes"]) == (0, 0, [])


def test_chunk_bounds_are_runs_of_whole_groups(tmp_path):
    rows = [os.urandom(1000)] * 5000
    for group in (1, 3, 100):
        options = f"group_size:{group},uncompressed"
        path = write(tmp_path / f"{group}", rows, options)
        bounds = ArrayRecordSource([path, path]).chunk_bounds
        runs = np.diff(bounds)
        assert (bounds[0], bounds[-1]) == (0, 10_000)
        assert 5000 in bounds
        assert (bounds[bounds < 5000] % group == 0).all()
        assert 125 <= runs.max() <= 260
    big = write(tmp_path / "big", [os.urandom(3 << 20)] * 3, "group_size:1,uncompressed")
    assert ArrayRecordSource(big).chunk_bounds.tolist() == [0, 1, 2, 3]


def test_a_group_is_taken_apart_once_by_reads_that_follow(tmp_path, monkeypatch):
    from pipeline.sources.riegeli import reading

    path = write(tmp_path / "a", [b"%d" % i for i in range(1000)], "group_size:500")
    source, asked = ArrayRecordSource(far(path)), []

    def counted(*args, fetch=reading.fetch, **more):
        asked.append(1)
        return fetch(*args, **more)

    monkeypatch.setattr(reading, "fetch", counted)
    got = [row for a in range(0, 1000, 10) for row in source.read(np.arange(a, a + 10))]
    assert got == [b"%d" % i for i in range(1000)]
    assert len(asked) == 2


def test_varints_that_do_not_end():
    with pytest.raises(ValueError, match="does not end"):
        varints.all_of(np.array([5, 0x80], np.uint8))
    with pytest.raises(ValueError, match="too long"):
        varints.all_of(np.array([0x80] * 9 + [1], np.uint8))
    with pytest.raises(ValueError, match="does not end"):
        varints.fields(b"\x12\x05ab")
    for value in (0, 127, 128, 300, 1 << 40, (1 << 62) + 3):
        data, left = [], value
        while left >= 0x80:
            data.append(left & 0x7F | 0x80)
            left >>= 7
        assert varints.all_of(np.array([*data, left], np.uint8)).tolist() == [value]
        at, after = varints.at(np.array([9, *data, left], np.uint8), np.array([1]))
        assert (at.tolist(), after.tolist()) == ([value], [len(data) + 2])
