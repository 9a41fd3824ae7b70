"""Files that survive a kill: logs of lines, locks, the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import BusyError, DamageError
from harness.files import LineLog, locked, read_json, read_lines, write_json
from harness.ledger import Entry, Ledger, read

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
