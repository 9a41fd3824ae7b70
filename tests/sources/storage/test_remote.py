"""URLs through every engine: the same bytes whatever goes wrong, and errors that say what did."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec import AbstractFileSystem
from fsspec.registry import _registry as registry

from pipeline import Dataset, Loader
from pipeline.errors import MissingExtraError, MissingFileError, SourceError, StorageError
from pipeline.sources import LinesSource, Storage, open_path
from pipeline.sources.storage.location import Answer
from pipeline.sources.storage.remote import check_answer
from pipeline.sources.storage.storage import Range, Stat
from pipeline.sources.storage.through_obstore import serves
from tests.emulators.fixtures import S3, Gcs

ENGINES = ("fsspec", "obstore", "auto")
DATA = random.Random(1).randbytes(300_000)


def some_ranges(stat: Stat, n: int = 60, seed: int = 0) -> list[Range]:
    rng = random.Random(seed)
    starts = [rng.randrange(stat.size) for _ in range(n)]
    return [stat.range(a, min(a + rng.randrange(3000), stat.size)) for a in starts]


def expected(ranges: list[Range], data: bytes = DATA) -> list[bytes]:
    return [data[span.start : span.stop] for span in ranges]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Any:
    return request.param


# ---- what is there


def test_files_of_a_bucket(gcs: Gcs, engine: Any) -> None:
    names = ["a-0.x", "a-1.x", "b [2].x", "deep/a-9.x"]
    urls = [gcs.put(name, name.encode()) for name in names]
    storage = gcs.storage(engine=engine)
    assert [s.path for s in storage.glob(gcs.bucket + "/a-?.x")] == urls[:2]
    assert [s.path for s in storage.glob(gcs.bucket + "/**/*.x")] == sorted(urls)
    assert [s.path for s in storage.glob(urls[2])] == [urls[2]]  # a name may hold brackets
    assert storage.glob(gcs.bucket + "/none-*") == []
    for url, stat in zip(urls, storage.stats(urls), strict=True):
        assert (stat.path, stat.size) == (url, len(url) - len(gcs.bucket) - 1)
        assert stat == storage.glob(url.replace("[2]", "[[]2]"))[0]  # one tag, however found


def test_files_of_s3(s3: S3, engine: Any) -> None:
    urls = [s3.put(f"{i}.x", DATA) for i in range(3)]
    storage = s3.storage(engine=engine)
    stats = storage.glob(s3.bucket + "/*.x")
    assert [s.path for s in stats] == urls
    assert stats == storage.stats(urls)
    ranges = some_ranges(stats[1])
    assert storage.read(ranges) == expected(ranges)
    s3.put("1.x", DATA[::-1])
    with pytest.raises(SourceError, match="has changed"):
        storage.read(ranges)
    storage.write(urls[0], b"new")
    assert storage.contents(urls[0]) == b"new"
    with pytest.raises(MissingFileError, match="does not exist"):
        storage.stat(s3.bucket + "/none")


def test_web_addresses(gcs: Gcs, engine: Any) -> None:
    gcs.put("a", DATA)
    url = web(gcs, "a")
    storage = Storage(deadline=5, engine=engine)
    stat = storage.stat(url)
    assert stat.size == len(DATA)
    ranges = some_ranges(stat)
    assert storage.read(ranges) == expected(ranges)
    gcs.put("a", DATA[::-1])
    with pytest.raises(SourceError, match="has changed"):
        storage.read(ranges)
    for missing in ("none", "416", "-416-of-500"):  # no status, though the error's text holds it
        with pytest.raises(MissingFileError):
            storage.stat(url + missing)
    gcs.put("empty", b"")
    assert storage.stat(web(gcs, "empty")).size == 0


def test_the_query_of_a_web_address_is_no_part_of_the_suffix(gcs: Gcs) -> None:
    gcs.put("a.txt", b"to\nbe\n")
    source = open_path(web(gcs, "a.txt") + "?download=true", storage=Storage(deadline=5))
    assert source.read(np.array([1, 0])) == ["be", "to"]


def test_other_protocols(tmp_path: Any) -> None:
    storage = Storage()
    storage.write("memory://storage-test/a", DATA)
    (stat,) = storage.glob("memory://storage-test/*")
    assert stat.path == "memory://storage-test/a"
    assert stat == storage.stat(stat.path)  # else the file would seem to have changed
    assert storage.read(some_ranges(stat)) == expected(some_ranges(stat))
    (tmp_path / "a").write_bytes(DATA)
    (stat,) = storage.glob(f"file://{tmp_path}/*")
    assert storage.read(some_ranges(stat)) == expected(some_ranges(stat))
    assert storage.read([Range(str(tmp_path / "a"), 5, 9)]) == [DATA[5:9]]


@pytest.mark.parametrize("scheme", ["memory", "local", "http"])
def test_a_file_of_the_same_size_is_noticed(gcs: Gcs, tmp_path: Path, scheme: str) -> None:
    def put(data: bytes) -> None:
        if scheme == "http":
            gcs.put("a", data)
        elif scheme == "memory":
            Storage().write(url, data)
        else:
            (tmp_path / "a").write_bytes(data)
            os.utime(tmp_path / "a", ns=(1, len(set(data))))

    urls = {
        "http": web(gcs, "a"),
        "memory": "memory://replaced/a",
        "local": f"local://{tmp_path}/a",
    }
    url = urls[scheme]
    put(b"to\nbe\n")
    source = LinesSource(url)
    assert source.read(np.array([1])) == ["be"]
    put(b"or\nor\n")
    with pytest.raises(SourceError, match="has changed"):
        source.read(np.array([1]))


class Hosts(AbstractFileSystem):
    """A file system of which each host is another one, as of ftp and sftp."""

    def __init__(self, host: str, **options: Any) -> None:
        super().__init__(**options)
        self.host = host.encode()

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        return {"host": path.split("/")[2]}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.split("/", 3)[-1] if "://" in path else path

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        return [{"name": f"/{n}", "size": len(self.host), "type": "file"} for n in ("a", "b")]

    def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
        return self.host[start:end]


def test_each_host_is_asked_for_its_own_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry, "hosts", Hosts)
    storage = Storage()
    for host in ("one", "another"):
        stats = storage.glob(f"hosts://{host}/*")
        assert [stat.path for stat in stats] == [f"hosts://{host}/a", f"hosts://{host}/b"]
        assert storage.read([stats[0].range(0, 3)]) == [host.encode()[:3]]


def test_a_protocol_may_be_in_capitals(gcs: Gcs, engine: Any) -> None:
    gcs.put("a", DATA)
    url = web(gcs, "a").replace("http", "HTTP")
    assert Storage(deadline=5, engine=engine).read([Range(url, 0, 9)]) == [DATA[:9]]


# ---- how it is fetched


def test_near_ranges_share_a_request(gcs: Gcs, engine: Any) -> None:
    stat = Stat(gcs.put("a", DATA), len(DATA))
    storage = gcs.storage(engine=engine, gap=100, largest=10_000)
    storage.stat(stat.path)
    gcs.forget()
    spans = [(0, 10), (50, 60), (5, 55), (500, 600), (50_000, 75_000), (0, 10), (70, 70)]
    ranges = [stat.range(*span) for span in spans]
    assert storage.read(ranges) == expected(ranges)
    asked = sorted(asked for _, _, asked in gcs.log())
    assert asked == sorted(
        f"bytes={a}-{b}"
        for a, b in [(0, 59), (500, 599), (50000, 59999), (60000, 69999), (70000, 74999)]
    )


def test_many_ranges_are_in_flight_together(gcs: Gcs, engine: Any) -> None:
    stat = gcs.storage(engine=engine).stat(gcs.put("a", DATA))
    storage = gcs.storage(engine=engine, gap=0)
    ranges = [stat.range(i, i + 10) for i in range(0, 64_000, 1000)]
    storage.read(ranges)  # connections
    gcs.control(latency=0.1, forget=True)
    assert storage.read(ranges) == expected(ranges)
    assert gcs.most() >= 8


def test_a_range_past_the_end_is_refused(gcs: Gcs, engine: Any) -> None:
    storage = gcs.storage(engine=engine, deadline=20)
    stat = storage.stat(gcs.put("a", b"0123456789"))
    with pytest.raises(OSError, match="has 10 bytes: there are no bytes 8 to 12"):
        storage.read([stat.range(8, 12)])
    with pytest.raises(StorageError, match="bytes 8 to 12 gave 2 of 4 bytes"):
        storage.read([Range(stat.path, 8, 12)])
    with pytest.raises(StorageError, match="416"):
        storage.read([Range(stat.path, 10, 12)])


# ---- what goes wrong

PASSING = [
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 429},
    {"kind": "drop"},
    {"kind": "truncate"},
    {"kind": "short"},
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda f: str(f.get("status", f["kind"])))
def test_what_passes_is_never_seen(gcs: Gcs, engine: Any, fault: dict[str, Any]) -> None:
    url = gcs.put("a", DATA)
    gcs.faults(fault | {"rate": 0.1, "seed": 5})
    storage = gcs.storage(engine=engine, gap=0, deadline=20)
    ranges = some_ranges(storage.stat(url), 50)
    assert storage.read(ranges) == expected(ranges)
    asked = [span for _, _, span in gcs.log() if span]
    assert len(asked) > len(set(asked))  # some were asked twice


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ({"kind": "status", "status": 503}, StorageError, r"reached: .*503.*tr(y|ies) in .*See"),
        ({"kind": "status", "status": 429}, StorageError, r"reached: .*429.*raise Storage\(dead"),
        ({"kind": "status", "status": 403}, StorageError, r"may not be read: .*403.*Log in"),
        ({"kind": "status", "status": 401}, StorageError, r"may not be read: .*401.*Log in"),
        ({"kind": "status", "status": 404}, MissingFileError, r"does not exist.*Correct the path"),
        ({"kind": "status", "status": 400}, StorageError, r"cannot be read: .*400.*Correct"),
        ({"kind": "drop"}, StorageError, r"reached: .*tr(y|ies) in .*See the network"),
        ({"kind": "hang"}, StorageError, r"reached: no answer in time; .*See the network"),
    ],
    ids=lambda f: str(f.get("status", f["kind"])) if isinstance(f, dict) else "",
)
def test_what_stays_is_said_in_time(
    gcs: Gcs, engine: Any, fault: dict[str, Any], error: type[Exception], message: str
) -> None:
    url = gcs.put("a", DATA)
    storage = gcs.storage(engine=engine, deadline=0.3)
    gcs.storage(engine=engine).stat(url)  # imports
    gcs.faults(fault)
    asks: list[Callable[[], Any]] = [
        lambda: storage.stat(url),
        lambda: storage.glob(gcs.bucket + "/*"),
        lambda: storage.read([Range(url, 0, 10), Range(url, 200_000, 200_010)]),
    ]
    for ask in asks:
        with pytest.raises(error, match=re.escape(gcs.bucket) + ".* " + message):
            ask()
    final = fault.get("status") in (400, 401, 403, 404)
    assert len(gcs.log()) <= 6 if final else len(gcs.log()) >= 3  # a stat, then one try each


def web(gcs: Gcs, name: str) -> str:
    return f"{gcs.url}/bucket/{gcs.folder}/{name}"


@pytest.mark.parametrize("kind", ["elsewhere", "unsaid", "grown", "retagged", "whole"])
@pytest.mark.parametrize("scheme", ["gs", "http"])
def test_an_answer_of_other_bytes_is_never_taken(
    gcs: Gcs, engine: Any, scheme: str, kind: str
) -> None:
    """What a server says of a range is held against what was asked: once, it is asked again."""
    url = gcs.put("a", DATA)
    url = url if scheme == "gs" else web(gcs, "a")
    more: Any = {"options": gcs.options} if scheme == "gs" else {}
    storage = Storage(engine=engine, deadline=1, **more)
    stat = storage.stat(url)
    ranges = [stat.range(1000, 2000), stat.range(250_000, 251_000)]
    gcs.faults({"kind": kind})
    with pytest.raises(SourceError, match=re.escape(url)):
        storage.read(ranges)
    if kind in ("elsewhere", "unsaid"):  # a proxy may be at fault, so another try may help
        gcs.faults({"kind": kind, "times": 2})
        assert storage.read(ranges) == expected(ranges)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(b"12345", 3, 100, "a"), ""),
        (Answer(b"12345", 3), ""),
        (Answer(b"12345", 0, 100, "a"), "from byte 0 on"),
        (Answer(b"12345", None), "from no place on"),
        (Answer(b"12345", 3, 99), "has changed.* 100 bytes, now 99"),
        (Answer(b"12345", 3, 100, "b"), "has changed.* tag a, now tag b"),
    ],
)
def test_what_is_said_of_a_range(answer: Answer, message: str) -> None:
    span = Range("gs://b/a", 3, 8, "a", 100)
    if not message:
        check_answer(answer, span)
        return
    with pytest.raises((SourceError, OSError), match=message):
        check_answer(answer, span)


def test_a_whole_file_may_come_without_a_place() -> None:
    check_answer(Answer(b"12345", None), Range("http://h/a", 0, 5, "", 5))


def test_a_missing_bucket(gcs: Gcs, engine: Any) -> None:
    storage = gcs.storage(engine=engine, deadline=20)
    for ask in (storage.stat, storage.glob):
        with pytest.raises(MissingFileError, match="no such object or bucket"):
            ask("gs://no-such-bucket/*.parquet" if ask == storage.glob else "gs://no-such-bucket/a")


@pytest.mark.parametrize("url", ["gs://nowhere/x.parquet", "s3://nowhere/x.parquet"])
def test_without_a_network(engine: Any, url: str) -> None:
    """A program of its own: nothing is printed besides, nothing keeps it from ending."""
    code = (
        "import time; from pipeline.errors import *; from pipeline.sources import *\n"
        f"s = Storage(deadline=0.5, engine={engine!r})\n"
        "start = time.monotonic()\n"
        f"try: open_path({url!r}, storage=s)\n"
        "except StorageError as e: print(round(time.monotonic() - start), e)"
    )
    env = {"PATH": "", "PYTHONPATH": ":".join(sys.path), "HOME": "/nonexistent"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert re.match(rf"\d {url} (cannot be reached|may not be read): ", out.stdout), out
    assert not out.stderr


def test_a_lasting_fault_is_tried_until_one_deadline_not_three(gcs: Gcs) -> None:
    class Bytes:
        def __init__(self, storage: Storage, url: str) -> None:
            self.storage, self.url = storage, url

        def __len__(self) -> int:
            return 10

        def read(self, indices: Any) -> list[bytes]:
            ranges = [Range(self.url, i, i + 1) for i in np.asarray(indices).tolist()]
            return self.storage.read(ranges)

    url = gcs.put("a", DATA)
    storage = gcs.storage(deadline=0.3)
    loader = Loader(Dataset(Bytes(storage, url)).on_error("skip"), 10)
    gcs.faults({"kind": "status", "status": 503})
    with pytest.raises(StorageError, match="503"):
        next(loader)
    tries = len(gcs.log())
    gcs.faults()
    assert next(loader).tolist() == [bytes([b]) for b in DATA[:10]]
    gcs.faults({"kind": "status", "status": 503})
    gcs.forget()
    with pytest.raises(StorageError):
        storage.read([Range(url, 0, 10)])
    assert tries <= 2 * len(gcs.log())


def test_files_are_written_and_removed(gcs: Gcs, engine: Any, tmp_path: Path) -> None:
    storage = gcs.storage(engine=engine)
    (tmp_path / "a").write_bytes(DATA)
    for name in ("a", "deep/b", "deep/c"):
        storage.upload(str(tmp_path / "a"), f"{gcs.bucket}/{name}")
    storage.write(f"{gcs.bucket}/deep/d", b"small")
    assert storage.contents(f"{gcs.bucket}/deep/b") == DATA
    storage.remove(f"{gcs.bucket}/deep/**")
    storage.remove(f"{gcs.bucket}/none/**")
    assert [stat.path for stat in storage.glob(f"{gcs.bucket}/**")] == [f"{gcs.bucket}/a"]


def test_obstore_is_the_engine_where_it_serves_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    for url in ("gs://b/a", "s3://b/a", "az://b/a", "abfs://b/a", "https://h/a"):
        assert serves(url, {}), url
    for url in (
        "memory://a",
        "hf://datasets/a",
        "https://h/a?sign=1",
        "https://h/a%20b",
        "file:///a",
    ):
        assert not serves(url, {}), url
    assert not serves("https://h/a", {"client_kwargs": {}})
    monkeypatch.setenv("AWS_CONFIG_FILE", __file__)  # profiles, which only boto knows
    assert not serves("s3://b/a", {})
    assert serves("s3://b/a", {"anon": True})


def test_where_obstore_is_missing_or_has_no_such_option_fsspec_is_the_engine(
    gcs: Gcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = gcs.put("a", DATA)
    patient = Storage(options=gcs.options | {"consistency": "none"})  # an option of gcsfs
    assert patient.contents(url) == DATA
    stat = gcs.storage().stat(url)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    storage = gcs.storage()
    assert storage.stat(url) == stat  # one tag, through whatever engine
    assert storage.glob(url[:-1] + "*") == [stat]
    assert storage.read([stat.range(5, 9)]) == [DATA[5:9]]
    gcs.put("a", DATA[::-1])
    with pytest.raises(SourceError, match="has changed"):
        storage.read([stat.range(5, 9)])


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, url, engine, said in [
        ("gcsfs.core", "gs://b/a", "fsspec", r"needs gcsfs.*lockstep-data\[gcs\]"),
        ("s3fs", "s3://b/a", "fsspec", r"needs s3fs.*lockstep-data\[s3\]"),
        ("obstore.store", "gs://b/a", "obstore", r"needs obstore.*lockstep-data\[obstore\]"),
    ]:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=said):
            Storage(engine=engine).stat(url)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("url", "more", "message"),
    [
        ("nope://b/a", {}, "Protocol not known: nope"),
        ("nope://b/a", {"engine": "obstore"}, "nope://b/a cannot be read through obstore"),
        ("gs://b", {"engine": "obstore"}, "names a bucket, no file"),
        ("gs://b/a", {"engine": "obstore", "options": {"colour": "red"}}, "colour"),
        ("gs://b/a", {"options": {"access": "all"}}, "access must be one of"),
    ],
)
def test_what_cannot_be_opened_says_so(url: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        Storage(**more).stat(url)


@pytest.mark.parametrize(
    "wrong",
    [
        {"deadline": 0},
        {"deadline": "5"},
        {"cache_size": "much"},
        {"engine": "curl"},
        {"cache_what": "all"},
        {"gap": -1},
        {"largest": 0},
        {"flight": 0},
    ],
)
def test_a_wrong_argument_is_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(SourceError, match=f"{name}="):
        Storage(**wrong)


# ---- who asks


def _child(storage: Storage, ranges: list[Range], answer: Any) -> None:
    try:
        answer.send(storage.read(ranges))
    except SourceError as e:
        answer.send(str(e))


def test_threads_share_a_storage(gcs: Gcs, engine: Any) -> None:
    url = gcs.put("a", DATA)
    storage = gcs.storage(engine=engine, gap=0)
    gate = threading.Barrier(8)

    def work(seed: int) -> None:
        gate.wait()
        ranges = some_ranges(storage.stat(url), 20, seed)
        assert storage.read(ranges) == expected(ranges)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_pickles_are_small_and_open_nothing(gcs: Gcs) -> None:
    storage = gcs.storage(deadline=7, cache_size="1GiB")
    fresh = len(pickle.dumps(storage))
    stat = storage.stat(gcs.put("a", DATA))
    assert len(pickle.dumps(storage)) == fresh < 600
    copy = pickle.loads(pickle.dumps(storage))
    assert copy == storage
    assert copy.read([stat.range(3, 9)]) == [DATA[3:9]]
    assert "anon" not in repr(storage)  # options may hold secrets


def _forked(storage: Storage, ranges: list[Range]) -> Any:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(storage, ranges, theirs))
    child.start()
    assert ours.poll(30)
    answer = ours.recv()
    child.join()
    ours.close()
    theirs.close()
    return answer


def test_forks_of_a_parent_that_read(gcs: Gcs) -> None:
    storage = gcs.storage(gap=0)
    ranges = some_ranges(storage.stat(gcs.put("a", DATA)))
    for _ in range(2):
        assert storage.read(ranges) == expected(ranges)
        assert _forked(storage, ranges) == expected(ranges)
    assert storage.read(ranges) == expected(ranges)


def test_obstore_says_that_it_does_not_survive_a_fork(gcs: Gcs) -> None:
    storage = gcs.storage(engine="obstore")
    ranges = some_ranges(storage.stat(gcs.put("a", DATA)))
    assert 'use Storage(engine="fsspec")' in _forked(storage, ranges)


def test_a_fresh_process_reads_by_a_pickle(gcs: Gcs, engine: Any) -> None:
    storage = gcs.storage(engine=engine, gap=0)
    ranges = some_ranges(storage.stat(gcs.put("a", DATA)))
    code = (
        "import pickle, sys; storage, ranges = pickle.load(sys.stdin.buffer)\n"
        "sys.stdout.buffer.write(pickle.dumps(storage.read(ranges)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((storage, ranges)),
        stdout=subprocess.PIPE,
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path)},
        check=True,
    )
    assert pickle.loads(out.stdout) == expected(ranges)
