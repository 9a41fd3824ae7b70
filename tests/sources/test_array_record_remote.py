"""ArrayRecordSource over URLs: few round trips, the same bytes, and faults on the way."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from pipeline.debug.conformance import check_source
from pipeline.errors import RecordError, SourceError
from pipeline.sources import ArrayRecordSource

RNG = np.random.default_rng(0)
ROWS = [RNG.integers(0, 200, n).astype(np.uint8).tobytes() for n in RNG.integers(0, 2000, 3000)]


def write(path, rows, options="group_size:1"):
    writer = ArrayRecordWriter(str(path), options)
    for row in rows:
        writer.write(row)
    writer.close()
    return path


ALIVE = []  # a cache that goes away while a whole copy is pinned warns of its open file


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """50 files, the fourth of them empty."""
    folder = tmp_path_factory.mktemp("shards")
    parts = np.array_split(np.arange(len(ROWS)), 49)
    parts.insert(3, np.arange(0))
    return [
        write(folder / f"{k:02}.array_record", [ROWS[i] for i in part], f"group_size:{1 + k % 3}")
        for k, part in enumerate(parts)
    ]


def test_memory_urls_keep_what_a_source_promises(shards):
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in shards:
        memory.pipe(f"/array-record/{path.name}", path.read_bytes())
    urls = [f"memory://array-record/{path.name}" for path in shards]
    source = ArrayRecordSource(urls)
    check_source(source, samples=40)
    assert source.read(np.arange(3000)) == ROWS
    assert source.fingerprint() == ArrayRecordSource(shards).fingerprint()
    memory.rm("/array-record", recursive=True)


def test_gs_urls_keep_what_a_source_promises(shards, gcs):
    source = ArrayRecordSource([gcs.upload(path) for path in shards], storage=gcs.storage())
    check_source(source, samples=20)
    assert source.read(np.arange(3000)) == ROWS
    wanted = RNG.integers(0, 3000, 200)
    assert source.read(wanted) == [ROWS[i] for i in wanted]


def test_64_random_records_take_one_round_trip(shards, gcs):
    urls = [gcs.upload(path) for path in shards]
    source = ArrayRecordSource(urls, storage=gcs.storage())
    source.read(np.arange(3))
    wanted = RNG.choice(3000, 64, replace=False)
    gcs.forget()
    assert source.read(wanted) == [ROWS[i] for i in wanted]
    asked = gcs.log()
    # ranges only, all known before the first is answered: nothing is asked for twice
    assert all(span for _, _, span in asked)
    assert len(asked) == len(set(asked)) <= 64
    # a copy in another process reads the indexes first: one request a file, at once
    again = pickle.loads(pickle.dumps(source))
    gcs.forget()
    assert again.read(wanted) == [ROWS[i] for i in wanted]
    assert len(gcs.log()) <= 64 + 50


def test_indexes_are_kept_in_the_cache(shards, gcs, tmp_path, monkeypatch):
    urls = [gcs.upload(path) for path in shards[:5]]
    storage = gcs.storage(cache=str(tmp_path / "cache"))
    n = len(ArrayRecordSource(urls, storage=storage))
    again = ArrayRecordSource(urls, storage=storage)
    gcs.forget()
    third = ArrayRecordSource(urls, storage=storage)
    assert not [span for _, _, span in gcs.log() if span]
    assert third.read(np.arange(n)) == again.read(np.arange(n)) == ROWS[:n]
    for path in (tmp_path / "cache" / "v1" / "notes").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-9] + b"\xa5" * 9)
    fresh = gcs.storage(cache=str(tmp_path / "cache"), deadline=30)
    assert ArrayRecordSource(urls, storage=fresh).read(np.arange(n)) == ROWS[:n]


def test_transposed_files_come_whole(tmp_path, gcs):
    path = write(tmp_path / "a.array_record", ROWS[:200], "group_size:5,transpose:true")
    url = gcs.upload(path)
    ALIVE.append(gcs.storage(cache=str(tmp_path / "cache")))
    source = ArrayRecordSource(url, storage=ALIVE[-1])
    assert source.read(np.arange(199, -1, -1)) == ROWS[199::-1]
    with pytest.raises(OSError, match="no cache"):
        ArrayRecordSource(url, storage=gcs.storage()).read(np.arange(3))


def test_faults_on_the_way_change_nothing(shards, gcs):
    urls = [gcs.upload(path) for path in shards[:10]]
    gcs.faults({"kind": "status", "status": 503, "rate": 0.1}, {"kind": "truncate", "rate": 0.1})
    source = ArrayRecordSource(urls, storage=gcs.storage(deadline=60))
    wanted = RNG.integers(0, len(source), 100)
    assert source.read(wanted) == [ROWS[i] for i in wanted]


def test_a_corrupt_record_names_its_url(tmp_path, gcs):
    data = bytearray(write(tmp_path / "a.array_record", ROWS[:100]).read_bytes())
    place = data.rfind(b"\x28\xb5\x2f\xfd", 0, 30_000)
    data[place : place + 4] = b"none"
    url = gcs.put("bad.array_record", bytes(data))
    source = ArrayRecordSource(url, storage=gcs.storage())
    with pytest.raises(RecordError, match=rf"record \d+ of {url}: bytes \d+ to \d+: .*unpack"):
        source.read(np.arange(100))


def test_a_replaced_object_is_no_corrupt_record(tmp_path, gcs):
    url = gcs.upload(write(tmp_path / "a.array_record", ROWS[:100]))
    source = ArrayRecordSource(url, storage=gcs.storage())
    source.read(np.arange(3))
    assert gcs.upload(write(tmp_path / "a.array_record", ROWS[100:200])) == url
    with pytest.raises(SourceError, match=r"a\.array_record.*(changed|replaced)") as caught:
        source.read(np.arange(50))
    assert not isinstance(caught.value, RecordError)
    cut = gcs.put("cut.array_record", (tmp_path / "a.array_record").read_bytes()[:-9])
    with pytest.raises(SourceError, match=r"cannot read .*cut\.array_record.*[Rr]ewrite it"):
        ArrayRecordSource(cut, storage=gcs.storage())
    with pytest.raises((SourceError, OSError), match="missing"):
        ArrayRecordSource(f"{gcs.bucket}/missing.array_record", storage=gcs.storage(deadline=5))
