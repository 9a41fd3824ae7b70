"""Files of named arrays: whole and checked or absent; whoever cuts one never kills a reader."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ScanError, SourceError
from pipeline.sources.storage import arrays
from pipeline.sources.storage.arrays import StoredArray, load_arrays, load_npy, save_arrays
from pipeline.sources.storage.spans import merge

FACTS = {"of": "a", "size": 3}


def some() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "flat": rng.integers(0, 1 << 40, 5000),
        "wide": rng.normal(size=(700, 3)),
        "none": np.zeros((0, 4), "<i2"),
        "text ü": np.array(["a", "bc"]),
        "one": np.array(7, np.uint8),
    }


@pytest.fixture(params=["small", "large"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file whose arrays are read as a whole, or one whose arrays stay in it."""
    if request.param == "large":
        monkeypatch.setattr(arrays, "_IN_MEMORY", 100)
        monkeypatch.setattr(arrays, "_SMALL", 100)
    save_arrays(str(tmp_path / "a"), some(), FACTS)
    return str(tmp_path / "a")


def test_arrays_come_back(path: str) -> None:
    found = load_arrays(path, FACTS)
    assert found is not None
    assert found.keys() == some().keys()
    for name, a in some().items():
        b = found[name]
        assert (b.dtype, b.shape) == (a.dtype, a.shape)
        assert np.asarray(b).tolist() == a.tolist()
        if a.ndim:
            assert len(b) == len(a)
            assert b[1:2].tolist() == a[1:2].tolist()
            assert b[2:].tolist() == a[2:].tolist()
    rng = np.random.default_rng(1)
    for name in ("flat", "wide"):
        at = rng.integers(0, len(some()[name]), (20, 6))
        assert found[name][at].tolist() == some()[name][at].tolist()
        assert found[name][at[:0]].shape == some()[name][at[:0]].shape
    assert load_arrays(path, FACTS | {"size": 4}) is None


def test_what_was_cut_is_absent_or_an_error_of_ours(path: str) -> None:
    found = load_arrays(path, FACTS)
    assert found is not None
    size = os.path.getsize(path)
    for left in (size - 1, size // 2, 100, 10, 0):
        os.truncate(path, left)
        assert load_arrays(path, FACTS) is None
    for a in found.values():
        if isinstance(a, StoredArray):
            with pytest.raises(SourceError, match="was cut while it was in use"):
                a[np.array([0, 600])]


HEADS: list[Any] = [
    5,
    [],
    {"facts": FACTS},
    {"facts": FACTS, "bytes": 10**30, "crc32": 0, "arrays": []},
    {"facts": FACTS, "bytes": 0, "crc32": 0, "arrays": [["a", "O", [0], 0]]},
    {"facts": FACTS, "bytes": 0, "crc32": 0, "arrays": [["a", "<i8", [10**12], 0]]},
    {"facts": FACTS, "bytes": 0, "crc32": 0, "arrays": [["a", "<i8", [-1, -1], 0]]},
    {"facts": FACTS, "bytes": 0, "crc32": 0, "arrays": [["a", "no such", [1], 0]]},
    {"facts": FACTS, "bytes": 0, "crc32": 0, "arrays": 5},
]


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_a_head_of_another_shape_is_absent(tmp_path: Path, head: Any) -> None:
    text = json.dumps(head).encode()
    frame = struct.pack("<17sQI", b"LOCKSTEP INDEX 1\n", len(text), zlib.crc32(text))
    data = frame + text
    (tmp_path / "a").write_bytes(data + bytes(-len(data) % 64))
    assert load_arrays(str(tmp_path / "a"), FACTS) is None


def test_a_head_nested_deep_is_absent(tmp_path: Path) -> None:
    text = b"[" * 10**5
    frame = struct.pack("<17sQI", b"LOCKSTEP INDEX 1\n", len(text), zlib.crc32(text))
    (tmp_path / "a").write_bytes(frame + text + bytes(100))
    assert load_arrays(str(tmp_path / "a"), FACTS) is None


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_what_is_no_file_of_ours_is_absent(tmp_path: Path, kind: str) -> None:
    save_arrays(str(tmp_path / "other"), some(), FACTS)
    path = tmp_path / "a"
    if kind == "link":
        path.symlink_to(tmp_path / "other")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    assert load_arrays(str(path), FACTS) is None


# ---- .npy


HEAD = b"\x93NUMPY\x01\x00"


@pytest.mark.parametrize(
    "head",
    [
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (10,}, }",
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (%d,), }" % 10**30,
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (-2, -4), }",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (8,), }",
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (9,), }",
        b"(" * 9000,
        b"{'descr': '<i8'}",
        b"",
    ],
    ids=lambda head: str(head[:60]),
)
def test_a_damaged_npy_is_named(tmp_path: Path, head: bytes) -> None:
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    (tmp_path / "a.npy").write_bytes(HEAD + len(head).to_bytes(2, "little") + head + bytes(64))
    with pytest.raises(ScanError, match=r"cannot read .*a\.npy: .*Scan again"):
        load_npy(str(tmp_path / "a.npy"), ScanError, "Scan again.")


CUT = """
import os, sys, numpy as np
from pipeline import Dataset, Scanned
from pipeline.errors import ScanError
from pipeline.sources.storage import arrays
arrays._IN_MEMORY = int(sys.argv[2])
scanned = Scanned(sys.argv[1])
assert scanned.at(np.array([5, 9999])).tolist() == [5, 9999]
assert scanned.runs(np.array([3, 78]), 128)[:, 0].tolist() == [384, 9984]
os.truncate(sys.argv[1] + "/column-0.npy", 5000)
try:
    print(scanned.at(np.array([9999])).tolist())
    print(list(Dataset(range(10_000)).filter(scanned.within(9999))))
except ScanError as e:
    print(e)
"""


@pytest.mark.parametrize(("memory", "said"), [(1 << 20, "[9999]"), (100, "was cut while")])
def test_a_scan_column_that_is_cut_never_kills_the_process(
    tmp_path: Path, memory: int, said: str
) -> None:
    from pipeline import Dataset, scan

    scan(Dataset(range(10_000)), abs, path=tmp_path / "s", workers=0)
    command = [sys.executable, "-c", CUT, str(tmp_path / "s"), str(memory)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert said in done.stdout


# ---- spans


@pytest.mark.parametrize("gap", [0, 3, 100])
def test_spans_are_merged_as_a_set_of_bytes_is(gap: int) -> None:
    rng = np.random.default_rng(gap)
    for _ in range(50):
        n = int(rng.integers(1, 30))
        file, start = rng.integers(0, 3, n) * 7, rng.integers(0, 500, n)
        stop = start + rng.integers(0, 40, n)
        runs = merge(file, start, stop, gap=gap)
        assert (runs.file[runs.run] == file).all()
        assert (runs.start[runs.run] <= start).all()
        assert (stop <= runs.stop[runs.run]).all()
        same = runs.file[1:] == runs.file[:-1]
        assert (runs.start[1:] > runs.stop[:-1] + gap)[same].all()
        for k in range(len(runs.start)):  # no run begins or ends without need
            mine = runs.run == k
            assert (start[mine].min(), stop[mine].max()) == (runs.start[k], runs.stop[k])
        data = {f: rng.bytes(600) for f in (0, 7, 14)}
        parts = [data[f][a:b] for f, a, b in zip(runs.file, runs.start, runs.stop, strict=True)]
        want = [data[f][a:b] for f, a, b in zip(file, start, stop, strict=True)]
        assert runs.parts(start, stop, parts) == want
