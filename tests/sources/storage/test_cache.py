"""The cache on disk: right bytes or none, within its limit, whoever is killed in the middle."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SourceError, StorageError
from pipeline.sources import Storage
from pipeline.sources.storage.cache import BLOCK, PINS, Cache
from pipeline.sources.storage.storage import Stat
from tests.emulators.fixtures import Gcs

DATA = random.Random(2).randbytes(3 * BLOCK + 1000)
WHATS = ("ranges", "shards")


@pytest.fixture(params=WHATS)
def what(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
def _no_pins() -> Iterator[None]:
    yield
    PINS.clear()


def entries(folder: Path) -> list[Path]:
    rooms = ("blocks", "shards", "notes")
    return [p for room in rooms for p in (folder / "v1" / room).rglob("*") if p.is_file()]


def size_of(folder: Path) -> int:
    return sum(p.stat().st_size for p in entries(folder))


def leftovers(folder: Path) -> list[str]:
    return os.listdir(folder / "v1" / "tmp")


def check(storage: Storage, stat: Stat, data: bytes = DATA, n: int = 20) -> None:
    rng = random.Random(3)
    starts = [rng.randrange(len(data)) for _ in range(n)]
    ranges = [stat.range(a, min(a + 2000, len(data))) for a in starts]
    assert storage.read(ranges) == [data[r.start : r.stop] for r in ranges]


def test_the_second_time_nothing_is_asked(gcs: Gcs, tmp_path: Path, what: Any) -> None:
    def fresh() -> Storage:
        return gcs.storage(cache=tmp_path, cache_what=what)

    stat = fresh().stat(gcs.put("a.bin", DATA))
    check(fresh(), stat)
    gcs.forget()
    check(fresh(), stat)
    assert gcs.log() == []
    assert fresh().read([stat.range(0, len(DATA))]) == [DATA]
    assert not leftovers(tmp_path)


def test_the_environment_names_the_folder(
    gcs: Gcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path / "here"))
    stat = gcs.storage().stat(gcs.put("a", DATA))
    check(gcs.storage(), stat)
    assert entries(tmp_path / "here")
    gcs.forget()
    check(gcs.storage(cache=""), stat)
    assert gcs.log()
    monkeypatch.delenv("LOCKSTEP_CACHE")
    with pytest.raises(StorageError, match=r"no cache .*Storage\(cache='a folder'\)"):
        gcs.storage().local(stat)


def test_a_replaced_file_is_another(gcs: Gcs, tmp_path: Path, what: Any) -> None:
    storage = gcs.storage(cache=tmp_path, cache_what=what)
    old = storage.stat(gcs.put("a", DATA))
    check(storage, old)
    new = storage.stat(gcs.put("a", DATA[::-1]))
    check(storage, new, DATA[::-1])
    check(storage, old)  # what was cached under the old tag is still that file
    other = storage.stat(gcs.put("b", DATA))
    gcs.put("b", DATA[::-1])
    with pytest.raises(SourceError, match="has changed"):
        check(storage, other)


def test_local_gives_a_path_that_stays(gcs: Gcs, tmp_path: Path) -> None:
    stats = [gcs.storage().stat(gcs.put(f"{i}.bin", DATA)) for i in range(4)]
    storage = gcs.storage(cache=tmp_path, cache_size=len(DATA))
    paths = [storage.local(stat) for stat in stats]  # four times the limit, and all in use
    assert [Path(path).read_bytes() for path in paths] == [DATA] * 4
    assert paths[0].endswith("-0.bin")
    assert storage.local(Stat(paths[0], 1)) == paths[0]
    PINS.clear()
    Cache(os.fspath(tmp_path), len(DATA)).keep_note("a", DATA)
    assert size_of(tmp_path) <= 2 * len(DATA) + 200


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "lost sum"])
def test_damage_is_found_and_fetched_anew(gcs: Gcs, tmp_path: Path, what: Any, how: str) -> None:
    stat = gcs.storage().stat(gcs.put("a.bin", DATA))
    check(gcs.storage(cache=tmp_path, cache_what=what), stat)
    for path in entries(tmp_path):
        data = path.read_bytes()
        if how == "lost sum":
            path.unlink() if path.suffix == ".sum" else None
        elif path.suffix != ".sum":
            middle = len(data) // 2
            flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
            path.write_bytes({"flip": flipped, "cut": data[:middle], "empty": b""}[how])
    check(gcs.storage(cache=tmp_path, cache_what=what), stat)
    gcs.forget()
    check(gcs.storage(cache=tmp_path, cache_what=what), stat)
    assert gcs.log() == []


def test_a_full_disk_costs_the_cache_not_the_data(
    gcs: Gcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    stat = gcs.storage().stat(gcs.put("a", DATA))
    monkeypatch.setattr(os, "replace", full)
    storage = gcs.storage(cache=tmp_path)
    check(storage, stat)
    assert "keeps nothing new" in caplog.text
    with pytest.raises(StorageError, match=r"No space left.*Free some space"):
        storage.local(stat)
    assert not leftovers(tmp_path)


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="Choose another folder"):
        Storage(cache=tmp_path / "file").note("a")


# ---- many at once


def test_one_fetches_a_shard_and_the_others_wait(gcs: Gcs, tmp_path: Path) -> None:
    stat = gcs.storage().stat(gcs.put("a.bin", DATA))
    storages = [gcs.storage(cache=tmp_path) for _ in range(8)]
    gcs.control(latency=0.05, forget=True)
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda storage: storage.local(stat), storages))
    assert len(set(paths)) == 1
    assert len(gcs.log()) == 1
    assert Path(paths[0]).read_bytes() == DATA


def _reader(storage: Storage, stats: list[Stat], seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(25):
        i = rng.randrange(len(stats))
        a = rng.randrange(len(DATA) - 100)
        if storage.read([stats[i].range(a, a + 100)]) != [_data_of(i)[a : a + 100]]:
            os._exit(3)
        if rng.random() < 0.2 and Path(storage.local(stats[i])).read_bytes() != _data_of(i):
            os._exit(4)


def _data_of(i: int) -> bytes:
    return DATA[i:] + DATA[:i]


def test_readers_share_a_cache_too_small_for_them(gcs: Gcs, tmp_path: Path, what: Any) -> None:
    limit = 2 * len(DATA)
    stats = [gcs.storage().stat(gcs.put(f"{i}", _data_of(i))) for i in range(6)]
    context = multiprocessing.get_context("fork")
    storage = gcs.storage(cache=tmp_path, cache_what=what, cache_size=limit)
    readers = [context.Process(target=_reader, args=(storage, stats, i)) for i in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert [reader.exitcode for reader in readers] == [0] * 4
    assert not leftovers(tmp_path)
    Cache(os.fspath(tmp_path), limit).keep_note("a", b"x" * (limit // 15))
    assert size_of(tmp_path) <= limit


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = Cache(os.fspath(tmp_path), 10 * (BLOCK + 4))
    stat = Stat("gs://b/a", 100 * BLOCK, "tag")
    for number in range(9):
        cache.keep_block(stat, number, bytes([number]) * BLOCK)
        assert cache.block(stat, 0) is not None  # used again and again
    for number in range(9, 14):
        cache.keep_block(stat, number, bytes([number]) * BLOCK)
    assert size_of(tmp_path) <= 10 * (BLOCK + 4)
    here = [n for n in range(14) if cache.block(stat, n) is not None]
    assert 13 in here
    assert 0 in here or 8 in here
    assert 1 not in here


# ---- what others do to a shared folder


def spoiled(path: Path, how: str, other: Path) -> None:
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to(other)
    elif how == "loop":
        path.symlink_to(path)
    else:
        os.mkfifo(path)


@pytest.mark.parametrize("how", ["folder", "link", "loop", "fifo"])
def test_an_entry_that_is_no_file_is_a_miss_with_one_warning(
    gcs: Gcs, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"somebody else's")
    folder = tmp_path / "cache"
    stat = gcs.storage().stat(gcs.put("a.bin", DATA))
    check(gcs.storage(cache=folder), stat)
    gcs.storage(cache=folder).keep_note("k", b"v")
    found = entries(folder)
    assert len(found) > 3
    for path in found:
        spoiled(path, how, other)
    storage = gcs.storage(cache=folder)
    check(storage, stat)
    storage.note("k")
    warned = [r for r in caplog.records if r.levelname == "WARNING"]
    assert 1 <= len(warned) <= 2  # one for what cannot be read, one for what cannot be replaced
    assert other.read_bytes() == b"somebody else's"


@pytest.mark.parametrize("how", ["folder", "link", "loop", "fifo"])
def test_a_lock_is_never_followed_nor_cut(gcs: Gcs, tmp_path: Path, how: str) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"somebody else's")
    folder = tmp_path / "cache"
    stat = gcs.storage().stat(gcs.put("a.bin", DATA))
    gcs.storage(cache=folder).local(stat)
    locks = folder / "v1" / "locks"
    (locks / "evict").touch()
    for path in locks.iterdir():
        spoiled(path, how, other)
    PINS.clear()
    for path in entries(folder):
        path.unlink()
    storage = gcs.storage(cache=folder, cache_size=1000)  # evicts at once
    assert Path(storage.local(stat)).read_bytes() == DATA
    storage.keep_note("k", DATA)
    assert other.read_bytes() == b"somebody else's"


AS_NOBODY = """
import os, sys, logging, pickle
plain, storage, stat, want = pickle.load(sys.stdin.buffer)
plain.read([stat.range(0, 1)])  # imports what this other user may not read
import pipeline.sources.storage.cache
os.setgid(65534); os.setuid(65534)
logging.basicConfig(format="%(levelname)s")
assert storage.read([stat.range(5, 9), stat.range(300_000, 300_004)]) == want
if sys.argv[1] == "local":
    assert open(storage.local(stat), "rb").read(9)[5:] == want[0]
storage.keep_note("k", b"v")
assert storage.note("k") is None
"""


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("what", ["open", "closed"])
def test_a_cache_of_another_user_is_read_as_far_as_it_may_be(
    gcs: Gcs, what: str, request: pytest.FixtureRequest
) -> None:
    """Entries of another umask, in folders that may only be read: misses, with one warning."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # folders of tests are closed to others
    request.addfinalizer(lambda: shutil.rmtree(folder))
    folder.chmod(0o755)
    stat = gcs.storage().stat(gcs.put("a.bin", DATA))
    check(gcs.storage(cache=folder), stat)
    gcs.storage(cache=folder).local(stat)
    if what == "closed":
        for path in entries(folder):
            path.chmod(0o600)
    plain, want = gcs.storage(cache=""), [DATA[5:9], DATA[300_000:300_004]]
    gcs.forget()
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "local" if what == "open" else "blocks"],
        input=pickle.dumps((plain, gcs.storage(cache=folder), stat, want)),
        capture_output=True,
        env=os.environ | {"HOME": "/nonexistent", "PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.decode().split() == ["WARNING"]
    assert (len(gcs.log()) > 1) == (what == "closed")


# ---- whoever is killed


@pytest.mark.long
def test_kill_9_in_the_middle_of_writes(gcs: Gcs, tmp_path: Path) -> None:
    """Fifty times: a writer is forked, killed after a random while, and the cache is looked at."""
    stats = [gcs.storage().stat(gcs.put(f"{i}", _data_of(i))) for i in range(3)]
    storage = gcs.storage(cache=tmp_path, cache_size=100 * len(DATA))
    rng = random.Random(4)
    seen = 0
    for turn in range(50):
        pid = os.fork()
        if pid == 0:
            _write_for_ever(storage, stats, turn)
        time.sleep(0.01 + 0.05 * rng.random())  # a writer's life, not a synchronisation
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        seen += len(leftovers(tmp_path)) if (tmp_path / "v1").exists() else 0
    assert seen  # else nobody was ever killed while writing
    last = gcs.storage(cache=tmp_path, cache_size=100 * len(DATA))
    for i, stat in enumerate(stats):
        assert Path(last.local(stat)).read_bytes() == _data_of(i)
        assert last.read([stat.range(0, stat.size)]) == [_data_of(i)]
    assert not leftovers(tmp_path)
    assert len(os.listdir(tmp_path / "v1" / "locks")) <= 1025


def _write_for_ever(storage: Storage, stats: list[Stat], seed: int) -> None:
    """What a killed process did: fetch, keep, lose and fetch again."""
    try:
        rng = random.Random(seed)
        cache = Cache(os.fspath(storage.cache or ""), 100 * len(DATA))
        while True:
            i = rng.randrange(len(stats))
            data = _data_of(i)
            if rng.random() < 0.5:
                if Path(cache.shard(stats[i], lambda d=data: _slowly(d))).read_bytes() != data:
                    break
            else:
                number = rng.randrange(3)
                block = data[number * BLOCK : (number + 1) * BLOCK]
                if cache.block(stats[i], number) not in (None, block):
                    break
                cache.keep_block(stats[i], number, block)
            for path in entries(Path(storage.cache or "")):
                path.unlink(missing_ok=True)
    finally:
        os._exit(9)


def _slowly(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 10_000):
        yield data[start : start + 10_000]


def test_a_lock_ends_with_its_process(gcs: Gcs, tmp_path: Path) -> None:
    """A process dies while it fetches a shard that another waits for."""
    stat = gcs.storage().stat(gcs.put("a.bin", DATA))
    storage = gcs.storage(cache=tmp_path)
    begun, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        cache = Cache(os.fspath(tmp_path), 1 << 30)

        def never() -> Iterator[bytes]:
            yield DATA[:100]
            os.write(release, b"x")
            signal.pause()

        cache.shard(stat, never)
    assert os.read(begun, 1) == b"x"
    found: list[str] = []
    waiter = threading.Thread(target=lambda: found.append(storage.local(stat)))
    waiter.start()
    assert len(leftovers(tmp_path)) == 1  # its lock is held: nobody may sweep it
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    waiter.join(30)
    os.close(begun)
    os.close(release)
    assert Path(found[0]).read_bytes() == DATA
    Cache(os.fspath(tmp_path), 1 << 30)
    assert not leftovers(tmp_path)
