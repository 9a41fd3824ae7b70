"""A cache changes no row, makes each once, and serves nothing damaged or of another dataset."""

from __future__ import annotations

import datetime as dt
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import (
    Dataset,
    Loader,
    Processes,
    Threads,
    WindowSource,
    concatenate,
    interleave,
    mix,
    scan,
    zip_datasets,
)
from pipeline.block import Columns
from pipeline.debug.digest import digest
from pipeline.errors import ChainError, CollateError
from pipeline.nodes.cache import disk
from pipeline.nodes.cache.rows import decode, encode

MADE: Counter[int] = Counter()


def make(x: int) -> dict[str, Any]:
    MADE[x] += 1
    return {"x": np.int64(x * x), "text": f"é{x}", "tokens": np.arange(x % 3 + 1)}


def squares(columns: Any) -> Any:
    MADE.update(columns["x"].tolist())
    return {"y": columns["x"] ** 2, "z": np.ones((len(columns["x"]), 2), np.float32)}


@pytest.fixture(autouse=True)
def _nothing_made() -> None:
    MADE.clear()


@pytest.fixture(params=["memory", "disk"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "cache" if request.param == "disk" else None


def numbers(n: int = 40, seed: int = 0) -> Dataset:
    return Dataset(range(n), seed=seed).map(make)


def rows(ds: Dataset, epochs: int = 1) -> list[str]:
    return [digest(row) for row in ds.repeat(epochs)]


def test_each_row_is_made_once_and_is_as_it_was(where: Path | None) -> None:
    plain = rows(numbers().shuffle(), 3)
    MADE.clear()
    assert rows(numbers().cache(where).shuffle(), 3) == plain
    assert set(MADE.values()) == {1}
    assert len(MADE) == 40


def test_columns_stay_columns(where: Path | None) -> None:
    ds = Dataset({"x": np.arange(30)}).map(squares, batched=True)
    kept = ds.cache(where)
    for positions in ([3, 1], [1, 2, 3, 29], [3, 3, 1]):
        ours, theirs = kept.read(positions).values, ds.read(positions).values
        assert isinstance(ours, Columns)
        assert isinstance(theirs, Columns)
        for name in ("y", "z"):
            assert ours.tree[name].dtype == theirs.tree[name].dtype
            assert ours.tree[name].tolist() == theirs.tree[name].tolist()
    MADE.clear()
    kept.read([29, 3])
    assert not MADE


def test_states_and_fingerprints_pass_between_runs_with_and_without(where: Path | None) -> None:
    def chain(ds: Dataset) -> Dataset:
        return ds.shuffle().map(lambda r: r["x"]).filter(lambda x: x % 2 == 0).lanes(2)

    plain, kept = chain(numbers()), chain(numbers().cache(where))
    assert plain.fingerprint() == kept.fingerprint()
    loader = Loader(plain, 4)
    next(loader)
    other = Loader(kept, 4)
    other.load_state_dict(loader.state_dict())
    assert digest(next(other)) == digest(next(loader))


def test_provenance_is_the_rows_own(where: Path | None) -> None:
    ds = numbers()[5:].shuffle(name="a", reshuffle=False)
    for step in (0, 11):
        assert list(Loader(ds.cache(where), 8).where(step)) == list(Loader(ds, 8).where(step))


def test_what_is_given_out_is_nobody_elses(where: Path | None) -> None:
    def spoil(row: Any) -> Any:
        row["tokens"][:] = -1
        row["x"] = 0
        return row

    clean = rows(numbers())
    kept = numbers().cache(where)
    for _ in range(2):
        list(kept.map(spoil))
        twice = kept[[2, 2]]
        block = twice.read([0, 1]).rows()
        spoil(block[0])
        assert digest(block[1]) == clean[2]
    assert rows(kept) == clean


def test_objects_of_columns_asked_for_twice_are_two(where: Path | None) -> None:
    def grown(row: Any) -> int:
        row["x"].append("b")
        return len(row["x"])

    kept = Dataset({"x": [["a"], ["a"], ["a"]]}).cache(where)[[0, 0, 1]]
    for _ in range(2):
        assert next(Loader(kept.map(grown), 3)).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("chain", "says"),
    [
        (lambda ds: ds.shuffle(), "reshuffle=False"),
        (lambda ds: ds.shuffle(window=3).map(str), "reshuffle=False"),
        (lambda ds: ds.random_map(lambda x, rng: x, name="r"), "Put it after the cache"),
        (lambda ds: ds.random_map(lambda x, rng: x, name="r")[:4], "Put it after the cache"),
        (lambda ds: concatenate([ds, ds.shuffle()]), "reshuffle=False"),
        (lambda ds: zip_datasets({"a": ds.shuffle(chunks=2)}), "reshuffle=False"),
        (lambda ds: ds.repeat(2), "put repeat after"),
        (lambda ds: ds.repeat(), "put repeat after"),
        (lambda ds: ds.filter(bool), "Move the cache before it"),
        (lambda ds: mix({"a": ds.filter(bool)}, {"a": 1}), r"but mix \(in it filter 'bool'"),
        (lambda ds: mix({"a": ds.filter(bool)}, {"a": 1}).map(str), r"but mix \(in it filter"),
        (lambda ds: mix({"a": ds}, {"a": 1}), "but mix, whose datasets go on"),
        (lambda ds: interleave([ds.on_error("skip"), ds]), "after the cache"),
    ],
)
def test_what_differs_by_epoch_is_refused(chain: Any, says: str) -> None:
    with pytest.raises(ChainError, match=says):
        chain(Dataset(range(9))).cache()


@pytest.mark.parametrize(
    "chain",
    [
        lambda ds: ds.shuffle()[:7],
        lambda ds: ds.shuffle()[[5, 2]],
        lambda ds: ds.shuffle(reshuffle=False),
        lambda ds: concatenate([ds.shuffle(), ds])[2:],
        lambda ds: interleave([ds, ds.cache()]),
        lambda ds: ds.map_with_index(lambda i, x: i + x),
        lambda ds: ds.cache().map(str).cache(),
    ],
)
def test_pinned_orders_are_kept(chain: Any, where: Path | None) -> None:
    ds = chain(Dataset(range(9), seed=4))
    kept = ds.cache(where)
    assert rows(kept, 3) == rows(ds, 3)
    assert rows(kept.shuffle(name="b"), 2) == rows(ds.shuffle(name="b"), 2)


def test_twins_are_found_beneath_a_cache() -> None:
    with pytest.raises(ChainError, match="two shuffle stages are named 'shuffle'"):
        Dataset(range(9)).shuffle(reshuffle=False).cache().shuffle()


def test_chunks_lie_beneath_a_cache_as_they_did(where: Path | None) -> None:
    ds = Dataset(range(99)).map(make)
    assert rows(ds.cache(where).shuffle(chunks=2, run=7)) == rows(ds.shuffle(chunks=2, run=7))


def test_failing_rows_are_skipped_above_and_good_ones_kept(where: Path | None) -> None:
    def bad(x: int) -> int:
        MADE[x] += 1
        return 12 // (x - 1)

    plain = Dataset(range(6)).map(bad).on_error("skip")
    kept = plain.cache(where)
    assert list(kept) == list(plain)
    MADE.clear()
    list(kept)
    assert set(MADE) == {1}


def test_an_empty_dataset_has_an_empty_cache(where: Path | None) -> None:
    assert list(Dataset(range(9))[:0].cache(where)) == []


@pytest.mark.parametrize("workers", [Threads(3), Processes(2, parent=False)])
def test_workers_share_it(workers: Any, where: Path | None) -> None:
    ds = numbers(200).cache(where).shuffle().map(lambda r: {"x": r["x"]})
    plain = Loader(numbers(200).shuffle().map(lambda r: {"x": r["x"]}), 16)
    expected = [[digest(b) for b in plain] for _ in range(2)]
    MADE.clear()  # workers refuse functions whose globals were changed here
    with Loader(ds, 16, workers=workers) as loader:
        assert [[digest(b) for b in loader] for _ in range(2)] == expected


def test_it_pickles_without_what_it_holds() -> None:
    ds = Dataset(range(5)).map(str).cache()
    size = len(pickle.dumps(ds.top))
    list(ds)
    assert len(pickle.dumps(ds.top)) == size


# ---- on disk


def test_another_run_finds_the_rows(tmp_path: Path) -> None:
    first = rows(numbers().cache(tmp_path))
    MADE.clear()
    assert rows(numbers().cache(tmp_path).shuffle(), 2) == rows(numbers().shuffle(), 2)
    MADE.clear()
    assert rows(numbers().cache(str(tmp_path))) == first
    assert not MADE


def test_another_dataset_finds_none_of_them(tmp_path: Path) -> None:
    variants = [
        numbers(),
        numbers(41),
        Dataset(range(1, 41)).map(make),
        numbers().map(lambda r: r),
        numbers()[::-1],
        Dataset(range(40), seed=1).shuffle(reshuffle=False).map(make),
        Dataset(range(40), seed=2).shuffle(reshuffle=False).map(make),
    ]
    for ds in variants:
        assert rows(ds.cache(tmp_path)) == rows(ds)
    assert len(list(tmp_path.iterdir())) == len(variants)


class Unnamed:
    """A source that does not say which records it holds."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __len__(self) -> int:
        return 9

    def read(self, indices: Any) -> list[int]:
        return (indices + self.first).tolist()


class Random:
    def __init__(self, first: int) -> None:
        self.first = first

    def __len__(self) -> int:
        return 9

    def __getitem__(self, i: int) -> Any:
        return self.first + i + np.random.default_rng().random()


class RandomBatches(Random):
    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[i] for i in indices]


class Opaque:
    def __init__(self, x: int) -> None:
        self.x = x


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (Unnamed, r"records of Unnamed, which has no fingerprint\(\)"),
        (lambda first: WindowSource(Unnamed(first), 2), "records of Unnamed"),
        (lambda first: [Opaque(first + i) for i in range(9)], "objects of type .*Opaque"),
        (Random, "records that are others each time"),
        (RandomBatches, "records that are others each time"),
        (lambda first: WindowSource([Opaque(first)] * 9, 2), "objects of type .*Opaque"),
    ],
)
def test_records_that_no_fingerprint_tells_from_others_are_not_kept_on_disk(
    source: Any, says: str, tmp_path: Path
) -> None:
    # rows of other records, as many, would be served
    ds = Dataset(source(0))
    for chain in (ds, concatenate([numbers(), ds])):
        with pytest.raises(ChainError, match=rf"looks into {says}.*Give the source a fingerprint"):
            chain.cache(tmp_path)
        with pytest.raises(ChainError, match=rf"scan finds rows again.*looks into {says}"):
            scan(chain, bool, path=tmp_path / "scan", workers=0)
    assert len(list(ds.cache())) == len(ds)


def test_rows_of_other_paths_and_times_are_other_rows(tmp_path: Path) -> None:
    for year in (2020, 2021):
        days = Dataset([dt.date(year, 1, day) for day in range(1, 9)])
        assert set(days.map(lambda day: day.year, name="year").cache(tmp_path)) == {year}


def test_a_component_has_rows_of_its_own_path(tmp_path: Path) -> None:
    part = Dataset(range(30)).shuffle(reshuffle=False).cache(tmp_path)
    plain = Dataset(range(30)).shuffle(reshuffle=False)
    assert list(concatenate([part, part])) == list(concatenate([plain, plain]))
    assert list(part) == list(plain)


def listed(pieces: Any) -> list[Any]:
    found = {int(i): row for places, some in pieces for i, row in zip(places, some, strict=True)}
    return [found[i] for i in sorted(found)]


def damage(folder: Path, how: str) -> None:
    (data,) = folder.glob("*/rows.0")
    (index,) = folder.glob("*/index")
    raw = bytearray(data.read_bytes())
    if how == "flip":
        for at in range(30, len(raw), 97):
            raw[at] ^= 4
        data.write_bytes(raw)
    elif how == "cut":
        data.write_bytes(raw[: len(raw) // 2])
    elif how == "gone":
        data.unlink()
    elif how == "index of noise":
        index.write_bytes(np.random.default_rng(0).bytes(index.stat().st_size))
    elif how == "index shifted":
        at = np.fromfile(index, "<i8")
        np.roll(at, 1).tofile(index)
    elif how == "index cut":
        index.write_bytes(index.read_bytes()[:9])


@pytest.mark.parametrize(
    "how", ["flip", "cut", "gone", "index of noise", "index shifted", "index cut"]
)
def test_damage_is_seen_and_made_anew(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = rows(numbers())
    MADE.clear()  # a function's globals are part of the fingerprint
    rows(numbers().cache(tmp_path))
    damage(tmp_path, how)
    MADE.clear()
    assert rows(numbers().cache(tmp_path)) == plain
    assert MADE
    assert ("made anew" in caplog.text) == (how != "index cut")
    MADE.clear()
    assert rows(numbers().cache(tmp_path)) == plain
    assert not MADE


_KILLED = """
import os, signal, sys
from tests.nodes.test_cache import numbers
ds = numbers(4000).cache(sys.argv[1])
for i, row in enumerate(ds):
    if i == 1000:
        os.write(os.open([p for p in __import__("glob").glob(sys.argv[1] + "/*/rows.0")][0],
                         os.O_WRONLY | os.O_APPEND), b"half an ent")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_only_whole_rows(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert rows(numbers(4000).cache(tmp_path)) == rows(numbers(4000))
    MADE.clear()
    rows(numbers(4000).cache(tmp_path))
    assert not MADE


_WRITER = """
import sys
from pipeline.debug.digest import digest
from tests.nodes.test_cache import numbers
print(*[digest(row) for row in numbers(500, int(sys.argv[2])).cache(sys.argv[1]).shuffle()])
"""


@pytest.mark.long
def test_many_processes_fill_one_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path), "0"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = {process.communicate()[0] for process in running}
    assert len(outputs) == 1
    assert outputs.pop().split() == rows(numbers(500).shuffle())
    MADE.clear()
    rows(numbers(500).cache(tmp_path))
    assert not MADE


def test_a_forked_child_writes_a_file_of_its_own(tmp_path: Path) -> None:
    from pipeline.nodes.cache import Disk

    store = Disk(str(tmp_path), "k", 10)
    store.put(np.arange(3), [1, 2, 3])
    store._pid = -1  # as a forked child finds it
    store.put(np.arange(3, 6), [4, 5, 6])
    assert sorted(p.name for p in (tmp_path / "k").iterdir()) == ["index", "rows.0", "rows.1"]
    pieces, missing = store.get(np.arange(10))
    assert listed(pieces) == [1, 2, 3, 4, 5, 6]
    assert missing.tolist() == [6, 7, 8, 9]


def test_two_writers_that_begin_at_once_take_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.nodes.cache import Disk

    monkeypatch.setattr(Path, "glob", lambda self, pattern: [])  # neither sees the other's yet
    for i in range(3):
        Disk(str(tmp_path), "k", 10).put(np.array([i]), [i])
    assert len(list((tmp_path / "k").iterdir())) == 4
    assert listed(Disk(str(tmp_path), "k", 10).get(np.arange(3))[0]) == [0, 1, 2]


def test_a_full_disk_costs_time_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ds = numbers().cache(tmp_path)
    (folder,) = [ds.top.node._store(ds.top.scope)._folder]  # pyright: ignore[reportAttributeAccessIssue]
    for file in range(3):
        os.symlink("/dev/full", folder / f"rows.{file}")
    store = ds.top.node._store(ds.top.scope)  # pyright: ignore[reportAttributeAccessIssue]
    store._own = (0, os.open("/dev/full", os.O_WRONLY))
    assert rows(ds) == rows(numbers())
    assert "cannot write to the cache" in caplog.text
    os.close(store._own[1])


def test_many_files_are_open_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.nodes.cache import Disk
    from pipeline.sources.storage import lru

    monkeypatch.setattr(lru, "most_open", lambda: 20)
    for i in range(60):
        Disk(str(tmp_path), "k", 100).put(np.array([i]), [i])
    store = Disk(str(tmp_path), "k", 100)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        pieces, missing = store.get(np.arange(100))
        assert listed(pieces) == list(range(100 - len(missing))) == list(range(60))
    assert len(os.listdir("/proc/self/fd")) <= before + 20


def test_a_folder_that_others_cut_costs_rows_not_the_process(tmp_path: Path) -> None:
    ds = numbers().cache(tmp_path)
    want = rows(numbers())
    assert rows(ds) == want
    (index,) = tmp_path.rglob("index")
    for size in (index.stat().st_size // 2 + 3, 8, 0):
        os.truncate(index, size)
        assert rows(ds) == want
    for path in tmp_path.rglob("rows.*"):
        os.truncate(path, path.stat().st_size // 2)
    assert rows(ds) == want


@pytest.mark.parametrize("how", ["link", "folder", "fifo"])
def test_what_lies_in_place_of_rows_is_not_followed(tmp_path: Path, how: str) -> None:
    ds, want = numbers().cache(tmp_path), rows(numbers())
    assert rows(ds) == want
    (tmp_path / "other").write_bytes(b"somebody else's")
    for path in tmp_path.rglob("rows.*"):
        path.unlink()
        if how == "link":
            path.symlink_to(tmp_path / "other")
        elif how == "folder":
            path.mkdir()
        else:
            os.mkfifo(path)
    fresh = pickle.dumps(ds)
    assert rows(pickle.loads(fresh)) == want
    (index,) = tmp_path.rglob("index")
    index.unlink()
    index.symlink_to(tmp_path / "other")
    with pytest.raises(ChainError, match="can be written to"):
        rows(pickle.loads(fresh))
    assert (tmp_path / "other").read_bytes() == b"somebody else's"


def test_places_that_cannot_hold_a_cache_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ChainError, match="local folder"):
        numbers().cache("gs://bucket/cache")
    (tmp_path / "file").write_text("")
    with pytest.raises(ChainError, match="can be written to"):
        numbers().cache(tmp_path / "file")[0]


# ---- rows as bytes


class Pair(NamedTuple):
    a: int
    b: int


ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
ARRAYS = st.builds(
    lambda shape, kind: (np.arange(int(np.prod(shape))) % 2).astype(kind).reshape(shape),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(["<f4", ">i2", "<u8", "?", "<c16", "<M8[ns]", "S3", "<U2"]),
)
RECORDS = np.array([(1, 2.5)], [("a", "i2"), ("b", ">f8")])
OTHERS = st.sampled_from(
    [
        *(
            np.array([[1, 2]]).view(np.matrix),
            RECORDS,
            RECORDS.view(np.recarray),
            RECORDS[:0].view(np.recarray),
        ),
        *(RECORDS.view(np.dtype((np.record, RECORDS.dtype))), np.arange(2, dtype="q")),
    ]
)
SCALARS = st.sampled_from(
    [
        *(np.float32(1.5), np.int8(-3), np.bool_(True), np.datetime64("2020", "D")),
        *(np.longlong(1), np.ulonglong(2), np.longdouble(3), np.timedelta64(4, "s")),
        *(np.bytes_(b"a\0"), np.bytes_(b""), np.str_("a\0"), np.str_(""), np.str_("\ud800")),
        *(RECORDS[0], RECORDS.view(np.recarray)[0]),
    ]
)
TREES = st.recursive(
    ATOMS | ARRAYS | SCALARS | OTHERS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.void):
        return a.dtype == b.dtype and a.dtype.type is b.dtype.type and a.tobytes() == b.tobytes()
    if isinstance(a, np.ndarray) and a.dtype.kind != "O":
        if a.dtype.type is not b.dtype.type:
            return False
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and all(map(same, a.reshape(-1), b.reshape(-1)))
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and (a == b or (a != a and b != b))


@given(st.lists(TREES, min_size=1, max_size=4))
def test_rows_come_back_as_they_were(values: list[Any]) -> None:
    pieces = decode(encode(values))
    assert all(map(same, listed(pieces), values))
    assert len(listed(pieces)) == len(values)


@given(st.lists(TREES, min_size=1, max_size=4), st.sampled_from(["<f4", ">i2", "<M8[ns]", "?"]))
def test_columns_come_back_as_they_were(values: list[Any], kind: str) -> None:
    n = len(values)
    objects = np.empty(n, object)
    for i, value in enumerate(values):
        objects[i] = value
    fixed = (np.arange(n * 6).reshape(n, 2, 3) % 2).astype(kind)
    for tree in (
        {"f": fixed, "e": fixed[:, :, :0], "x": fixed[:, 0, 0]},
        {"o": objects, "f": fixed},
    ):
        ((places, back),) = decode(encode(Columns(tree)))
        assert places.tolist() == list(range(n))
        assert isinstance(back, Columns)
        assert same(back.tree, tree)
        assert all(a.flags.writeable for a in back.tree.values())


class Own(np.ndarray): ...


TITLED = np.zeros(2, [(("title", "name"), "i4")])
ODD = [np.zeros(2).view(Own), np.ma.masked_equal([1, 0], 0), TITLED]


def test_rows_that_an_earlier_version_wrote_otherwise_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def as_it_did(values: Any) -> list[bytes]:
        return [row.replace(b'["m"', b'["s"') for row in encode(values)]

    ds = (
        Dataset(range(4))
        .map(lambda i: np.array([[i, 1]]).view(np.matrix), name="m")
        .cache(str(tmp_path))
    )
    with monkeypatch.context() as then:
        then.setattr(disk, "encode", as_it_did)
        assert len(list(ds)) == 4
    for _ in range(2):
        again = (
            Dataset(range(4))
            .map(lambda i: np.array([[i, 1]]).view(np.matrix), name="m")
            .cache(str(tmp_path))
        )
        assert [(type(row), row.tolist()) for row in again] == [
            (np.matrix, [[i, 1]]) for i in range(4)
        ]
    assert "earlier version" in caplog.text


@pytest.mark.parametrize("kind", [np.matrix, np.recarray, Own])
def test_columns_are_arrays_of_numpys_own_type_by_every_way(kind: Any, where: Path | None) -> None:
    def view(rows: Any) -> Any:
        if kind is np.recarray:
            return np.rec.fromarrays([rows["x"]], dtype=[("a", "i8")])
        return np.stack([rows["x"]] * 2, axis=1).view(kind)

    ds = Dataset({"x": np.arange(4)}).map(view, batched=True, name="view")
    kept = ds.cache(where)
    for _ in range(2):
        assert [type(row) for row in kept] == [type(row) for row in ds]
        assert [row.tolist() for row in kept] == [row.tolist() for row in ds]
        assert type(next(Loader(kept, 2))) is type(next(Loader(ds, 2))) is np.ndarray


@pytest.mark.parametrize(
    "row", [np.zeros(2).view(Own), Pair(1, 2), {1: 2}, {1, 2}, np.zeros(2, "V2"), object(), *ODD]
)
def test_what_would_come_back_as_something_else_is_refused(row: Any) -> None:
    with pytest.raises(ChainError, match=r"cache in memory: \.cache\(\)"):
        encode([row])


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"a": v}, lambda v: (v,)])
def test_rows_nested_too_deeply_are_refused_by_name(wrap: Any) -> None:
    value: Any = 1
    for _ in range(900):
        value = wrap(value)
    objects = np.empty(1, object)
    objects[0] = value
    for values in ([value], Columns({"o": objects})):
        with pytest.raises(CollateError, match="levels deep"):
            encode(values)
