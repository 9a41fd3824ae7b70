"""Scans: what they hold, that they outlive a kill, and that stale ones are named."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import Dataset, Processes, Scanned, Threads, concatenate, mix, scan
from pipeline.errors import ChainError, PositionError, RecordError, ScanError
from tests.scan import killing


def third(x: Any) -> bool:
    return bool(x % 3 == 0)


def measured(x: int) -> dict[str, Any]:
    return {"keep": x % 2 > 0, "length": x * 3, "a/b": x / 2}


@pytest.mark.parametrize("workers", [0, Threads(2), Processes(2, parent=False)])
def test_a_scan_holds_one_value_for_each_record(workers: Any, tmp_path: Path) -> None:
    n = 2_500
    one = scan(Dataset(range(n)), third, path=tmp_path / "one", workers=workers)
    assert one.values.dtype == bool
    assert np.array_equal(one.values, np.arange(n) % 3 == 0)
    many = scan(Dataset(range(n)), measured, path=tmp_path / "many", workers=workers)
    assert {k: v.dtype for k, v in many.values.items()} == {
        "keep": bool,
        "length": np.int64,
        "a/b": np.float64,
    }
    assert np.array_equal(many["length"].values, np.arange(n) * 3)
    assert np.array_equal(many["a/b"].values, np.arange(n) / 2)
    assert len(many) == n
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["column-0.npy", "scan.json"]


def test_numbers_of_several_kinds_are_joined_and_flags_are_not(tmp_path: Path) -> None:
    ds = Dataset(range(3_000))
    halves = scan(ds, lambda x: x / 2 if x % 2 else x // 2, path=tmp_path / "a", workers=0)
    assert np.array_equal(halves.values, np.arange(3_000) / 2)
    late = scan(ds, lambda x: 0.5 if x > 2_990 else 1, path=tmp_path / "b", workers=0)
    assert late.values.dtype == np.float64
    small = scan(ds, lambda x: np.uint8(x % 200), path=tmp_path / "c", workers=0)
    assert small.values.dtype == np.uint8
    for first in (5, 1_500, 2_500):  # within a work, and pieces that differ
        with pytest.raises(ScanError, match="flags for some rows and numbers for others"):
            scan(ds, lambda x, a=first: x if x < a else True, path=tmp_path / f"{first}", workers=0)
        path = tmp_path / f"{first} fields"
        with pytest.raises(ScanError, match="Return the same ones for every row"):
            scan(ds, lambda x, a=first: {"ab"[x < a]: 1}, path=path, workers=0)


@pytest.mark.parametrize("value", ["a", None, [1], np.zeros(2), {"a": "b"}, {}, 1 << 70])
def test_other_values_are_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="scan '<lambda>'"):
        scan(Dataset(range(3)), lambda _: value, path=tmp_path / "s", workers=0)
    assert not (tmp_path / "s" / "scan.json").exists()


def test_a_scan_is_made_once(tmp_path: Path) -> None:
    calls: list[int] = []

    class Counting:
        def fingerprint(self) -> str:
            return "counting"

        def __call__(self, x: int) -> bool:
            calls.append(x)
            return True

    ds = Dataset(range(10), seed=1)
    first = scan(ds, Counting(), path=tmp_path, workers=0)
    assert scan(Dataset(range(10), seed=2), Counting(), path=tmp_path, workers=0) == first
    assert scan(ds.on_error("skip"), Counting(), path=tmp_path, workers=0) == first
    assert len(calls) == 10


def test_pickles_are_small_and_values_cannot_be_changed(tmp_path: Path) -> None:
    made = scan(Dataset(range(5_000)), measured, path=tmp_path, workers=0)
    for one in (made["length"], made["length"].within(3, 9)):
        again = pickle.loads(pickle.dumps(one))
        assert len(pickle.dumps(one)) < 500
        assert again == one
        assert np.array_equal(again.values, one.values)
    assert not made["length"].values.flags.writeable
    assert np.flatnonzero(made["length"].within(3, 9).values).tolist() == [1, 2, 3]
    assert np.flatnonzero(made["length"].within(most=3).values).tolist() == [0, 1]
    assert Scanned(str(tmp_path)) == made


def test_a_killed_scan_goes_on_where_it_stood(tmp_path: Path) -> None:
    trap, folder = tmp_path / "trap", tmp_path / "scan"
    trap.touch()
    command = [sys.executable, "-m", "tests.scan.killing", str(trap), str(folder)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with pytest.raises(ScanError, match="no finished scan at"):
        Scanned(str(folder))
    trap.unlink()
    killing.CALLS.clear()
    found = scan(killing.dataset(), killing.Fatal(trap), path=folder, workers=0)
    assert list(range(2_048, killing.RECORDS)) == killing.CALLS
    assert np.array_equal(found.values, np.arange(killing.RECORDS) % 3 == 0)
    assert sorted(p.name for p in folder.iterdir()) == ["column-0.npy", "scan.json"]


def test_pieces_of_another_function_are_not_mixed_in(tmp_path: Path) -> None:
    def breaks(x: int) -> bool:
        return 1 // (2_000 - x) >= 0

    ds = Dataset(range(3_000))
    with pytest.raises(ZeroDivisionError) as caught:
        scan(ds, breaks, path=tmp_path, workers=0)
    assert any("record 2000" in note for note in caught.value.__notes__)
    assert list(tmp_path.glob("pieces-*/0000.arrays"))
    found = scan(ds, third, path=tmp_path, workers=0)
    assert np.array_equal(found.values, np.arange(3_000) % 3 == 0)


def test_a_damaged_piece_is_made_again(tmp_path: Path) -> None:
    def breaks(x: int) -> bool:
        if x == 2_500 and (tmp_path / "trap").exists():
            raise ValueError("trapped")
        return x % 3 == 0

    ds, folder = Dataset(range(3_000)), tmp_path / "scan"
    (tmp_path / "trap").touch()
    with pytest.raises(ValueError, match="trapped"):
        scan(ds, breaks, path=folder, workers=0)
    piece = next(folder.glob("pieces-*/0001.arrays"))
    piece.write_bytes(piece.read_bytes()[:-20])
    (tmp_path / "trap").unlink()
    found = scan(ds, breaks, path=folder, workers=0)
    assert np.array_equal(found.values, np.arange(3_000) % 3 == 0)


def test_another_process_may_finish_first(tmp_path: Path) -> None:
    ds = Dataset(range(1_500))
    other = []

    def outrun(x: int) -> bool:
        if x == 1_200 and not other:
            other.append(True)
            other.append(scan(ds, outrun, path=tmp_path, workers=0, fingerprint="thirds"))
        return x % 3 == 0

    # what it has seen is in `other`, a part of it: said, it counts as the same function
    assert scan(ds, outrun, path=tmp_path, workers=0, fingerprint="thirds") == other[1]


def test_scans_lie_beside_the_data(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": np.arange(9)}), file)
    ds = Dataset(str(file))
    found = scan(ds, lambda row: bool(row["x"] > 4), workers=0)
    assert Path(found.path).parent == tmp_path
    assert Path(found.path).name.startswith("lambda-")
    named = scan(ds, lambda row: bool(row["x"] > 4), name="long enough", workers=0)
    assert Path(named.path).name.startswith("longenough-")
    assert [int(row["x"]) for row in ds.filter(found)] == [5, 6, 7, 8]


def test_rows_left_out_by_errors_are_flagged_false(tmp_path: Path) -> None:
    def bad(x: int) -> int:
        if x % 4 == 1:
            raise RecordError("torn")
        return x

    ds = Dataset(range(10)).map(bad).on_error("skip")
    assert scan(ds, lambda x: True, path=tmp_path / "a", workers=0).values.tolist() == [
        x % 4 != 1 for x in range(10)
    ]
    scores = scan(ds, lambda x: x / 2, path=tmp_path / "b", workers=0).values
    assert np.flatnonzero(np.isnan(scores)).tolist() == [1, 5, 9]


# ---- what cannot be scanned, and stale scans


class Elsewhere:
    """A source whose records are neither files here nor in memory."""

    def __len__(self) -> int:
        return 3

    def read(self, indices: Any) -> list[int]:
        return [int(i) for i in indices]


def test_rows_in_memory_need_no_path() -> None:
    ds = Dataset([{"n": i} for i in range(9)], seed=1)
    odd = scan(ds, lambda row: row["n"] % 2 == 1, workers=0, name="odd")
    assert sorted(row["n"] for row in ds.filter(odd)) == [1, 3, 5, 7]
    again = scan(ds, lambda row: row["n"] % 2 == 1, workers=0, name="odd")
    assert np.array_equal(again.values, odd.values)
    code = (
        "from pipeline import Dataset, scan\n"
        "import glob, os, tempfile\n"
        "scan(Dataset([1, 0]), bool, workers=0)\n"
        "assert glob.glob(tempfile.gettempdir() + '/lockstep-scan-*')\n"
        "if os.fork() == 0: raise SystemExit\n"
        "os.wait()\n"
        "assert glob.glob(tempfile.gettempdir() + '/lockstep-scan-*')\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"TMPDIR": folder}
        subprocess.run([sys.executable, "-c", code], env=env, check=True)
        assert os.listdir(folder) == []


class Sampled:
    """A sequence of which a fingerprint looks at 64 records."""

    def __init__(self, odd: int) -> None:
        self.odd = odd

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, i: int) -> int:
        return -1 if i == self.odd else i


def test_a_scan_of_rows_in_memory_is_of_these_rows_alone() -> None:
    for odd in (501, 502):
        found = scan(Dataset(Sampled(odd)), lambda x: x < 0, workers=0, name="odd")
        assert np.flatnonzero(found.values).tolist() == [odd]


def test_rows_without_lasting_places_are_refused(tmp_path: Path) -> None:
    base = Dataset(range(8))
    for ds, why in [
        (base.shuffle(), "shuffle 'shuffle' sets other rows there"),
        (base.shuffle(window=3).map(abs), "shuffle 'shuffle'"),
        (base.random_map(lambda x, rng: x, name="noise"), "random_map 'noise'"),
        (concatenate([base, base.shuffle(name="deep")]), "shuffle 'deep'"),
        (base.filter(bool), "filter 'bool' counts rows"),
        (base.repeat(), "scan before repeat"),
        (base[:0], "no rows to scan"),
    ]:
        with pytest.raises(ChainError, match=why):
            scan(ds, bool, path=tmp_path / "s", workers=0)
    with pytest.raises(ChainError, match=r"Elsewhere lie in no file here: give path="):
        scan(Dataset(Elsewhere()), bool)
    with pytest.raises(ChainError, match="give a function"):
        scan(base, 3, path=tmp_path / "s")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ChainError, match="wants a Dataset, not list"):
        scan([1], bool)  # pyright: ignore[reportArgumentType]


def test_pinned_orders_can_be_scanned(tmp_path: Path) -> None:
    base = Dataset(range(20))
    orders = [
        base.shuffle(reshuffle=False),
        base.shuffle()[:15],
        concatenate([base, base.shuffle()])[3:],
        base.shuffle(window=4).shuffle(name="2", reshuffle=False).repeat(2),
    ]
    for i, ds in enumerate(orders):
        kept = ds.filter(scan(ds, third, path=tmp_path / str(i), workers=0))
        assert list(kept.repeat(2)) == 2 * [x for x in ds if x % 3 == 0]


def test_a_scan_of_another_dataset_is_named(tmp_path: Path) -> None:
    ds = Dataset(range(10))
    found = scan(ds, third, path=tmp_path, workers=0)
    for other, why in [
        (Dataset(range(11)), r"source: \w+ -> \w+"),
        (ds.shuffle(), r"shuffle 'shuffle' stands between: filter before it"),
        (ds[1:], r"slice 'slice' stands between"),
    ]:
        with pytest.raises(ScanError, match=why):
            other.filter(found)
    assert list(ds.map(str).filter(found)) == ["0", "3", "6", "9"]
    with pytest.raises(ScanError, match=r"something else\. function: third \w+ -> bool \w+\. Give"):
        scan(ds, bool, path=tmp_path, workers=0)
    with pytest.raises(ChainError, match=r"filter 'bool' counts rows"):
        ds.filter(bool).filter(found)


def test_others_may_read_a_scan(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        scan(Dataset(range(3)), third, path=tmp_path / "a", workers=0)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()}
    assert modes == {"scan.json": 0o644, "column-0.npy": 0o644}


def test_a_scan_replaced_meanwhile_is_named(tmp_path: Path) -> None:
    found = scan(Dataset(range(10)), third, path=tmp_path, workers=0)
    kept = pickle.dumps(found)
    header = json.loads((tmp_path / "scan.json").read_text())
    (tmp_path / "scan.json").write_text(json.dumps({**header, "digest": "0"}))
    with pytest.raises(ScanError, match="was replaced meanwhile"):
        pickle.loads(kept)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', '{"version": 9, "rows": 1}'])
def test_a_damaged_header_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "scan.json").write_text(text)
    with pytest.raises(ScanError, match="Delete the folder and scan again"):
        Scanned(str(tmp_path))


def test_damaged_columns_are_named(tmp_path: Path) -> None:
    scan(Dataset(range(10)), third, path=tmp_path, workers=0)
    column = tmp_path / "column-0.npy"
    np.save(column, np.zeros(3, bool))
    with pytest.raises(ScanError, match=r"has shape \(3,\), not \(10,\)"):
        _ = Scanned(str(tmp_path)).values
    np.save(column, np.array([None]), allow_pickle=True)
    with pytest.raises(ScanError, match=r"cannot read .*column-0.* Delete the folder"):
        _ = Scanned(str(tmp_path)).values
    column.unlink()
    with pytest.raises(ScanError, match=r"cannot read .*column-0.* Delete the folder"):
        _ = Scanned(str(tmp_path)).values


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(ScanError, match="is a file, a scan is a folder"):
        scan(Dataset(range(3)), third, path=tmp_path / "f", workers=0)


def test_columns_are_chosen_by_name(tmp_path: Path) -> None:
    ds = Dataset(range(9))
    found = scan(ds, measured, path=tmp_path, workers=0)
    assert list(ds.filter(found["keep"])) == [1, 3, 5, 7]
    assert list(ds.filter(found["a/b"].within(1.5, 3))) == [3, 4, 5, 6]
    with pytest.raises(ScanError, match=r"no column 'kept': choose one of \['keep'"):
        found["kept"]
    with pytest.raises(ScanError, match=r"choose it by scanned\['keep'\]"):
        ds.filter(found)
    with pytest.raises(ScanError, match=r"holds int64\. Say which values stay: .*within"):
        ds.filter(found["length"])


@pytest.mark.parametrize("other", [0, 0.5, True, "a", np.arange(3), np.int64(1)])
def test_a_scan_is_not_taken_for_its_values(other: Any) -> None:
    ds = Dataset([3, 5, 8])
    found = scan(ds, lambda x: x % 2, workers=0, progress=False)
    with pytest.raises(ScanError, match=r"compare scanned\.values"):
        _ = found == other
    with pytest.raises(ScanError, match=r"compare scanned\.values"):
        _ = found != other
    with pytest.raises(PositionError, match=r"ds\[scanned\.values == 0\]"):
        _ = ds[found]  # pyright: ignore[reportArgumentType, reportCallIssue]
    again = pickle.loads(pickle.dumps(found))
    assert found == again
    assert hash(found) == hash(again)
    assert found != found.within(1)
    assert found != None  # noqa: E711


def test_a_mix_is_scanned_where_its_rows_stay_or_in_parts(tmp_path: Path) -> None:
    parts = {"a": Dataset(range(9)), "b": Dataset(range(5))}
    ds = mix(parts, {"a": 1, "b": 1})
    with pytest.raises(ChainError, match=r"mix, whose datasets go on from pass to pass, sets"):
        scan(ds, third, path=tmp_path / "no", workers=0)
    counted = mix({"a": parts["a"].filter(third), "b": parts["b"]}, {"a": 1, "b": 1})
    with pytest.raises(ChainError, match=r"but mix \(in it filter 'third' of dataset 'a'\) counts"):
        scan(counted, third, path=tmp_path / "no", workers=0)
    pinned = ds[:8]
    flags = scan(pinned, third, path=tmp_path / "pinned", workers=0)
    kept = pinned.filter(flags)
    assert [kept.read(range(len(kept)), epoch=e).rows() for e in (0, 2)] == [[0, 0, 3, 3]] * 2
    one = scan(parts["a"], third, path=tmp_path / "a", workers=0)
    mixed = mix({**parts, "a": parts["a"].filter(one)}, {"a": 1, "b": 1})
    assert not mixed.counted
    assert list(mixed) == [0, 0, 3, 1, 6, 2]
    with pytest.raises(ScanError, match=r"filter: Scanned\(.*a', 9 records\) is of another"):
        ds.filter(one)


def test_a_cache_beneath_changes_no_scan(tmp_path: Path) -> None:
    ds = Dataset(range(12), seed=2).shuffle(reshuffle=False)
    flags = scan(ds, third, path=tmp_path / "scan", workers=0)
    assert list(ds.cache().filter(flags)) == list(ds.filter(flags))
    assert len(scan(ds.cache(), third, path=tmp_path / "scan", workers=0)) == 12


HEADER = {"version": 1, "rows": 10, "named": False, "digest": "00", "of": {"a": "b"}}
COLUMNS = [{"name": "", "dtype": "<i8"}]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "7",
        json.dumps(HEADER | {"columns": COLUMNS, "rows": 10**30}),
        json.dumps(HEADER | {"columns": COLUMNS, "rows": -1}),
        json.dumps(HEADER | {"columns": COLUMNS, "rows": "10"}),
        json.dumps(HEADER | {"columns": COLUMNS, "of": [1]}),
        json.dumps(HEADER | {"columns": COLUMNS, "of": {"a": {}}}),
        json.dumps(HEADER | {"columns": COLUMNS, "digest": None}),
        json.dumps(HEADER | {"columns": [{"name": "", "dtype": "no such"}]}),
        json.dumps(HEADER | {"columns": [7]}),
        json.dumps(HEADER | {"columns": []}),
        json.dumps(HEADER | {"columns": COLUMNS, "version": {}}),
    ],
    ids=lambda text: text[-40:],
)
def test_a_header_of_another_shape_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "scan.json").write_text(text)
    with pytest.raises(ScanError, match=r"scan\.json.*Delete the folder and scan again"):
        Scanned(str(tmp_path))
