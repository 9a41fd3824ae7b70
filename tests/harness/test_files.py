"""Files that survive a kill: logs of lines, locks, the ledger."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import BusyError, DamageError
from harness.files import LineLog, locked, read_json, read_lines, write_json
from harness.ledger import Entry, Ledger, read
from tests.harness.runs import LIMIT

ENTRY = Entry(
    step=3,
    launch=0,
    loss=None,
    loss_bits="7f800000",
    grad_norm=1.5,
    digest="0123456789abcdef",
    data_step=3,
    rows=(24, 32),
    seconds={"data": 0.1, "step": 0.2, "save": 0.0},
)


def append(path: Path, value: dict[str, int]) -> None:
    log = LineLog(path)
    log.append(value)
    log.close()


@pytest.mark.parametrize("torn", [b'{"a"', b"{", b'{"a": 2}'])
def test_a_torn_line_is_left_out_and_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "log"
    append(path, {"a": 1})
    with open(path, "ab") as f:
        f.write(torn)
    assert read_lines(path) == [{"a": 1}]
    append(path, {"a": 3})
    assert read_lines(path) == [{"a": 1}, {"a": 3}]


def test_damage_inside_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"a": 1}\n{"a":\n{"a": 3}\n')
    with pytest.raises(DamageError, match=r"line 2 of .*log"):
        read_lines(path)


@pytest.mark.parametrize("line", [b'{"a": 1, "b{"a": 2}', b"3", b"[" * 10**5, b"\xff", b"\0" * 20])
def test_a_torn_line_in_the_middle_is_named_with_the_remedy(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    with pytest.raises(DamageError, match=r"line 2 of .*log is torn .*sed -i 2d"):
        read_lines(path)


def test_a_short_write_is_an_error_and_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, {"a": 1})
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from harness.files import LineLog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "log = LineLog(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30, 30))\n"
        "log.append({'a': 'x' * 100})\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert "only 21 of 110 bytes could be added" in done.stderr
    assert path.read_bytes() == b'{"a": 1}\n'
    append(path, {"a": 2})
    assert read_lines(path) == [{"a": 1}, {"a": 2}]


def test_json_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"{")
    with pytest.raises(DamageError, match=r"x\.json is not JSON"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_bytes(b"[]")
    with pytest.raises(DamageError, match=r"x\.json holds no JSON object"):
        read_json(tmp_path / "x.json")


def test_no_log(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "log") == []


def test_ledger_gives_back_what_it_got(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(ENTRY)
    assert read(tmp_path / "ledger.jsonl") == [ENTRY]  # before it is closed or synced
    ledger.close()


def test_a_line_that_is_no_entry(tmp_path: Path) -> None:
    append(tmp_path / "ledger.jsonl", {"step": 1})
    with pytest.raises(DamageError, match=r"line 1 .*\['step'\]"):
        read(tmp_path / "ledger.jsonl")


def test_json_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [1]})
    write_json(tmp_path / "x.json", {"a": [2]})
    assert read_json(tmp_path / "x.json") == {"a": [2]}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert read_json(tmp_path / "y.json") is None


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock", wait=False),
        pytest.raises(BusyError, match=str(tmp_path)),
        locked(tmp_path / "lock", wait=False),
    ):
        pass
    with locked(tmp_path / "lock", wait=False):
        pass
