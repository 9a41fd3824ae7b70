"""verify and inspect of damaged files: never a traceback, the file named, the exit status right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.__main__ import main
from tests.tools.inspection.formats import FORMATS

_EACH = 40
# in a process of its own: a parser of others may end it
_TRIED = """
import contextlib, io, sys
from pathlib import Path
import numpy as np
from pipeline.__main__ import main

path, seeds = Path(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3]))
whole = path.read_bytes()
beside = {p: p.read_bytes() for p in path.parent.iterdir() if p.is_file()}

def damaged(rng):
    data = bytearray(whole)
    kind, n = rng.integers(4), len(data)
    at, size = int(rng.integers(n)), int(rng.integers(1, max(2, n // 4)))
    if kind == 0:
        for at in rng.integers(0, n, 3):
            data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        del data[at : at + size]
    else:
        data[at : at + size] = rng.bytes(size)
    return bytes(data)

for seed in seeds:
    print(seed, flush=True)
    for other, data in beside.items():
        other.write_bytes(data)
    path.write_bytes(damaged(np.random.default_rng(seed)))
    for command in (["inspect", f"{path}:2"], ["verify", str(path), "--workers", "0"]):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(command)
        assert status in (0, 1, 2), status
        said = out.getvalue() + err.getvalue()
        assert "Traceback" not in said
        if status == 2:
            assert err.getvalue().count("\\n") == 1, said
        if status:
            assert str(path.parent) in said, said
"""


def tried(folder: Path, name: str, first: int, number: int) -> None:
    suffix, write, *_ = FORMATS[name]
    path = folder / f"a{suffix}"
    write(path, range(60))
    command = [sys.executable, "-c", _TRIED, str(path), str(first), str(first + number)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, (name, done.stdout.split()[-1:], done.stderr[-3000:])


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    tried(tmp_path, name, 0, _EACH)


@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    tried(tmp_path, name, _EACH, 200)


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<i4', 'fortran_order': False, 'shape': (3,), ",  # no end
        b"{'descr': '<i4', 'fortran_order': False, 'shape': (%d,), }" % 10**30,
        b"(" * 5000,
        b"{'descr': '<i4', 'fortran_order': False, 'shape': (" + b"-" * 3000 + b"3,), }",
    ],
)
def test_headers_of_nonsense(
    tmp_path: Path, header: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.npy"
    data = header.ljust(64 * (len(header) // 64 + 1) - 11) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(data).to_bytes(2, "little") + data + bytes(12))
    np.save(tmp_path / "b.npy", np.arange(3))
    for command in ("inspect", "verify"):
        assert main([command, str(path)]) == 1
        out, err = capsys.readouterr()
        assert (str(path) in out, err) == (True, "")
    assert main(["verify", f"{tmp_path}/*.npy", "--json", "--workers", "0"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert ([bad["file"] for bad in found["bad"]], found["records"]) == ([str(path)], 3)


def test_a_missing_file_could_not_be_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("inspect", "verify", "manifest"):
        assert main([command, "nowhere.parquet"]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n"), "nowhere.parquet" in err) == ("", 1, True)


@pytest.mark.parametrize("kind", ["a header is cut", "a field is missing"])
def test_what_inspect_calls_bad_it_also_says_by_its_status(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ("t.tar" if kind == "a header is cut" else "t.jsonl")
    path.write_bytes(b"x" if kind == "a header is cut" else b'{"a": 1}\n{"a": 2\n')
    for command in ("inspect", "verify"):
        assert main([command, str(path)]) == 1
        assert "BAD" in capsys.readouterr().out
        assert main([command, str(path), "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["ok"] is False
