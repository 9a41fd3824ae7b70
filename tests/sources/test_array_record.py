"""ArrayRecordSource on real files: whole, empty, truncated, corrupt and replaced ones."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from pipeline import Dataset, Loader
from pipeline.debug.conformance import check_source
from pipeline.errors import PositionError, RecordError, SourceError, StorageError
from pipeline.sources.array_record import ArrayRecordSource
from pipeline.sources.riegeli import chunks
from pipeline.sources.riegeli.index import Index, read_indexes
from pipeline.sources.storage.storage import Storage
from pipeline.tools.inspection import verify


def record(i):
    return b"%d:\0" % i + b"x" * (i % 7)


def write(path, records, options="group_size:1"):
    writer = ArrayRecordWriter(str(path), options)
    for r in records:
        writer.write(r)
    writer.close()
    return str(path)


def shards(folder, counts, options="group_size:1"):
    start, paths = 0, []
    for k, n in enumerate(counts):
        rows = [record(i) for i in range(start, start + n)]
        paths.append(write(folder / f"{k}.array_record", rows, options))
        start += n
    return paths


COUNTS = {
    "0": [0],
    "1": [1],
    "2": [2],
    "1000": [1000],
    "shards": [300, 0, 1, 699],
    "empty at both ends": [0, 5, 0],
}


@pytest.mark.parametrize("options", ["group_size:1", "group_size:64"])
@pytest.mark.parametrize("counts", list(COUNTS.values()), ids=list(COUNTS))
def test_keeps_what_a_source_promises(tmp_path, counts, options):
    source = ArrayRecordSource(shards(tmp_path, counts, options))
    n = sum(counts)
    check_source(source, samples=40)
    for wanted in (np.arange(n), np.arange(n)[::-1], np.random.default_rng(0).permutation(n)):
        assert source.read(wanted) == [record(i) for i in wanted]
    assert source.chunk_bounds.tolist() == np.unique([0, *np.cumsum(counts)]).tolist()


def test_every_way_to_read_gives_the_same(tmp_path):
    # a run of neighbours, few scattered and many scattered records take three different calls
    source = ArrayRecordSource(shards(tmp_path, [3000]))
    for wanted in (np.arange(100, 200), np.arange(0, 3000, 300), np.arange(0, 3000, 2)):
        assert source.read(wanted) == [record(i) for i in wanted]


def test_empty_records_are_records(tmp_path):
    source = ArrayRecordSource(write(tmp_path / "a", [b"", b"a", b""]))
    assert source.read(np.array([2, 1, 0])) == [b"", b"a", b""]


def test_where_names_file_and_record(tmp_path):
    paths = shards(tmp_path, [2, 0, 3])
    where = ArrayRecordSource(paths).where(np.array([4, 1, 2]))
    assert where == [(paths[2], 2), (paths[0], 1), (paths[2], 0)]
    with pytest.raises(PositionError):
        ArrayRecordSource(paths).where(np.array([5]))


def test_truncated_files_name_themselves(tmp_path):
    whole = (tmp_path / "whole").with_suffix(".array_record")
    write(whole, [record(i) for i in range(1000)])
    data = whole.read_bytes()
    for cut in (1, 63, 64, 1000, 65535, 65536, 65537, 100_000, len(data) - 65536, len(data) - 1):
        bad = tmp_path / "bad.array_record"
        bad.write_bytes(data[:cut])
        with pytest.raises(SourceError, match=r"bad\.array_record.*[Rr]ewrite it, or remove it"):
            ArrayRecordSource([whole, bad])


@pytest.mark.parametrize("data", [b"", b"text\n" * 40_000, bytes(1 << 17)])
def test_files_of_another_kind_name_themselves(tmp_path, data):
    bad = tmp_path / "bad.array_record"
    bad.write_bytes(data)
    with pytest.raises(SourceError, match=r"bad\.array_record.*remove it from paths"):
        ArrayRecordSource(bad)


def damage(path, at, data=b"\xa5" * 8):
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(data)


def chunk_of(path, i):
    """Where the chunk with record i begins and ends."""
    index = read_indexes([Storage().stat(path)], Storage())[0]
    assert isinstance(index, Index)
    chunk = i // index.group
    return int(index.offsets[chunk]), int(index.offsets[chunk + 1])


# which bytes of a chunk are overwritten, and what is said of it without looking at checksums
DAMAGE = {
    "another count of records": (25, b"\x07", "another number of records"),
    "a wrong size": (8, b"\xff\xff", "its size is wrong"),
    "a wrong size of records": (32, b"\x77", "size of its records is wrong"),
    "what does not unpack": ("magic", b"\xa5" * 4, "it does not unpack"),
    "a flipped bit of data": (-5, b"\xa5", None),
    "a flipped bit of the header's hash": (0, b"\xa5", None),
}


def named(path, url):
    """A path, or its contents under a URL."""
    if not url:
        return path
    place = f"memory://{os.path.basename(os.path.dirname(path))}/a.array_record"
    Storage().write(place, Path(path).read_bytes())
    return place


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("url", [False, True])
@pytest.mark.parametrize("how", list(DAMAGE))
def test_a_corrupt_record_is_named_and_spoils_no_other(tmp_path, how, group, url):
    path = write(tmp_path / "a", [record(i) * 40 for i in range(999)], f"group_size:{group}")
    start, stop = chunk_of(path, 501)
    place, data, reason = DAMAGE[how]
    if place == "magic":  # of the frame that holds the values
        place = Path(path).read_bytes().rfind(b"\x28\xb5\x2f\xfd", start, stop) - start
    damage(path, stop + place if place < 0 else start + place, data)
    path = named(path, url)
    source = ArrayRecordSource(path)
    if url and reason is None:
        with pytest.raises(StorageError, match="no cache"):
            ArrayRecordSource(path, verify=True).read(np.arange(9))
        source = source.verifying()
    reason = reason if url and reason else ""
    lost = np.arange(501, 501 + group)
    good = np.setdiff1d(np.arange(999), lost)
    for wanted in (np.arange(999), np.array([0, 501, 998]), np.arange(501, 999, 3)):
        message = rf"cannot read record 501 of {path}: .*bytes {start} to {stop}: .*{reason}.*"
        with pytest.raises(RecordError, match=message + "on_error"):
            source.read(wanted)
        assert source.read(good[:20]) == [record(i) * 40 for i in good[:20]]
    assert source.read(good) == [record(i) * 40 for i in good]
    skipping = Loader(Dataset(source).on_error("skip"), 9, collate=list)
    rows = [row for batch in skipping for row in batch]
    assert set(rows) == {record(i) * 40 for i in good}


def test_any_flipped_bit_of_a_local_file_is_noticed(tmp_path):
    n = 300
    rows = [record(i) for i in range(n)]
    path = write(tmp_path / "a", rows, "group_size:2,uncompressed")
    whole, end = Path(path).read_bytes(), chunk_of(path, n - 1)[1]
    silent = 0
    for at in np.random.default_rng(0).integers(0, end, 40).tolist():
        Path(path).write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with contextlib.suppress(SourceError):
            silent += ArrayRecordSource(path).read(np.arange(n)) != rows
    assert not silent


def test_verify_copies_remote_files_and_leaves_nothing(tmp_path):
    path = named(write(tmp_path / "a.array_record", [record(i) for i in range(50)]), True)
    before = open_files(tempfile.gettempdir())
    assert verify(path).ok
    data = bytearray(Storage().contents(path))
    data[data.find(record(20)[:4])] ^= 1
    Storage().write(path, bytes(data))
    assert [(bad.file, bad.first) for bad in verify(path).bad] == [(path, 20)]
    gc.collect()  # an error and the frames it came through hold each other
    assert not set(open_files(tempfile.gettempdir())) - set(before)


def test_an_unknown_codec_is_left_to_the_native_reader(tmp_path):
    path = write(tmp_path / "a", [record(i) for i in range(100)])
    damage(path, chunk_of(path, 7)[0] + 40, b"\x01")
    source = ArrayRecordSource(path)
    with pytest.raises(RecordError, match=rf"cannot read record 7 of {path}: .*on_error"):
        source.read(np.arange(100))
    good = np.delete(np.arange(100), 7)
    assert source.read(good) == [record(i) for i in good]


def test_an_undecodable_record_of_a_group_leaves_its_neighbours(tmp_path):
    path = write(tmp_path / "a", [record(i) for i in range(10)], "group_size:10")

    def decode(row):
        return {"i": int(row.split(b":")[0]) if row != record(3) else row.decode("ascii") / 0}

    rows = list(Dataset(ArrayRecordSource(path)).map(decode).on_error("skip"))
    assert {row["i"] for row in rows} == set(range(10)) - {3}


def test_what_is_bad_once_is_read_again(tmp_path, monkeypatch):
    path = named(write(tmp_path / "a", [record(i) * 40 for i in range(10)]), True)
    source, calls = ArrayRecordSource(path), []

    def spoilt(self, ranges, read=Storage.read):
        calls.append(ranges)
        data = read(self, ranges)
        return data if len(calls) > 1 else [bytes(len(part)) for part in data]

    source.read(np.array([0]))
    monkeypatch.setattr(Storage, "read", spoilt)
    assert source.read(np.array([3])) == [record(3) * 40]
    assert len(calls) == 2


def test_a_file_cut_while_open_is_no_empty_record(tmp_path):
    path = write(tmp_path / "a.array_record", [os.urandom(400) for _ in range(3000)])
    for wanted in ([2999], list(range(2900, 3000)), list(range(0, 3000, 2))):
        source = ArrayRecordSource(path)
        source.read(np.array([0]))
        data = Path(path).read_bytes()
        os.truncate(path, 400_000)
        with pytest.raises(SourceError, match="has changed since its records were counted"):
            source.read(np.array(wanted))
        Path(path).write_bytes(data)


def test_a_file_replaced_or_removed_names_itself(tmp_path):
    path = write(tmp_path / "a.array_record", [b"a"] * 100)
    source = ArrayRecordSource(path)
    changed = os.stat(path).st_mtime_ns
    write(path, [b"a"] * 101)
    os.utime(path, ns=(changed, changed))
    assert os.path.getsize(path) == 131072  # the sizes agree, the counts do not
    with pytest.raises(SourceError, match="it had 100 records, now 101"):
        source.read(np.array([0]))
    os.remove(path)
    with pytest.raises(SourceError, match=r"cannot read .*a\.array_record"):
        source.read(np.array([0]))


def test_fingerprint_outlives_a_move_and_sees_a_change(tmp_path):
    (tmp_path / "a").mkdir()
    paths = shards(tmp_path / "a", [3, 4])
    first = ArrayRecordSource(paths).fingerprint()
    assert ArrayRecordSource(paths[::-1]).fingerprint() != first
    (tmp_path / "a").rename(tmp_path / "b")
    assert ArrayRecordSource(str(tmp_path / "b" / "*.array_record")).fingerprint() == first
    shards(tmp_path / "b", [3, 5])
    assert ArrayRecordSource(str(tmp_path / "b" / "*.array_record")).fingerprint() != first


def test_pickles_are_small_and_read_the_same_in_another_process(tmp_path):
    source = ArrayRecordSource(shards(tmp_path, [500, 500]))
    source.read(np.arange(1000))
    data = pickle.dumps(source)
    assert len(data) < 1000
    code = (
        "import pickle, sys, numpy as np; s = pickle.load(sys.stdin.buffer);"
        "sys.stdout.buffer.write(pickle.dumps((s.read(np.arange(999, -1, -1)), s.fingerprint())))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert pickle.loads(done.stdout) == (
        [record(i) for i in range(999, -1, -1)],
        source.fingerprint(),
    )


def test_forks_after_use_read_on(tmp_path):
    paths = shards(tmp_path, [1000, 1000], "group_size:2")
    code = f"""
import gc, os, signal, sys, numpy as np
from pipeline.sources.array_record import ArrayRecordSource
from pipeline.sources.storage.lru import LRU
s = ArrayRecordSource({paths!r}); want = s.read(np.arange(0, 2000, 2))
# as if threads held the locks of all caches at the fork
caches = [held for held in gc.get_objects() if isinstance(held, LRU)]
assert len(caches) >= 2
for cache in caches:
    cache._lock.acquire()
for _ in range(60):
    pid = os.fork()
    if not pid:
        signal.alarm(20)  # a child that hangs dies
        os._exit(0 if s.read(np.arange(0, 2000, 2)) == want else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        sys.exit(1)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_threads_share_one_source(tmp_path):
    source, wrong = ArrayRecordSource(shards(tmp_path, [1500, 1500])), []

    def work(seed):
        rng = np.random.default_rng(seed)
        for k in (1, 5, 1200) * 10:
            wanted = rng.integers(0, 3000, k)
            if source.read(wanted) != [record(i) for i in wanted]:
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(s,)) for s in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def open_files(folder):
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return [f for f in links if os.path.islink(f) and os.readlink(f).startswith(str(folder))]


def test_files_open_when_read_and_close_on_close(tmp_path):
    source = ArrayRecordSource(shards(tmp_path, [5] * 4))
    assert len(open_files(tmp_path)) == 0
    for _ in range(2):
        source.read(np.arange(20))
        assert len(open_files(tmp_path)) == 4
        source.close()
        source.close()
        assert len(open_files(tmp_path)) == 0


@pytest.mark.parametrize("options", ["group_size:1,zstd", "group_size:4,brotli", "group_size:2"])
def test_a_group_that_unpacks_to_more_than_the_limit_is_refused(
    tmp_path: Path, options: str
) -> None:
    large = [bytes(1 << 20)] * 4
    path = write(tmp_path / "a.array_record", large, options)
    group = len(large[0]) * int(options[11])
    with pytest.raises(SourceError, match=rf"a\.array_record.*{group} bytes.*record_limit="):
        ArrayRecordSource(path, record_limit=group - 1)
    source = ArrayRecordSource(path, record_limit=group)
    assert pickle.loads(pickle.dumps(source)).read(np.arange(4)) == large


def test_a_chunk_that_unpacks_to_more_than_its_index_says_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.array_record", [bytes(1 << 20)], "group_size:1,zstd")
    data = Path(path).read_bytes()
    (index,) = read_indexes([Storage().stat(path)], Storage())
    assert isinstance(index, Index)
    span = np.array([index.offsets[:1], index.offsets[1:]])
    found = chunks.cut([data], np.zeros(1, np.int64), np.zeros(1, np.int64), *span)
    assert len(chunks.decode(found, None, 1 << 20).data) == 1 << 20
    with pytest.raises(chunks.DamagedError, match="record_limit=1000"):
        chunks.decode(found, None, 1000)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "x", None])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, limit: Any) -> None:
    path = write(tmp_path / "a.array_record", [b"a"], "group_size:1")
    with pytest.raises(SourceError, match="record_limit"):
        ArrayRecordSource(path, record_limit=limit)
