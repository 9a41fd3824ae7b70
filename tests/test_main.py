"""python -m pipeline: what it says where nothing was asked, and where something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline import Dataset, Loader
from pipeline.__main__ import COMMANDS, main
from pipeline.debug.journal import Journal


def test_without_a_command_all_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().out
    assert all(f"    {name} " in shown for name in COMMANDS)


def test_an_error_of_ours_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "nowhere.parquet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "nowhere.parquet" in err


@pytest.mark.long
def test_every_command_takes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine_json.py").write_text(
        "from pipeline import Dataset, Loader\ndata = Dataset(range(600)).shuffle()\n"
        "def loader():\n    return Loader(data[:4], 2)\n"
        "lines = Loader(Dataset(['to be', 'or not']), 1)\n"
    )
    Path("a.jsonl").write_text('{"id": 1}\n{"id": 2}\n')
    Path("page.txt").write_text("or not\n")
    loader = Loader(Dataset(range(600)).shuffle(), 4)
    with Journal("run", loader, data="mine_json:data") as journal:
        journal.log(loss=float(sum(next(loader))))
    asked = {
        "audit": ["mine_json:data", "--epochs", "23"],
        "check": ["mine_json:data"],
        "convert": ["a.jsonl", "b.parquet", "--workers", "0"],
        "doctor": ["mine_json:loader", "--batches", "2"],
        "inspect": ["a.jsonl"],
        "manifest": ["a.jsonl"],
        "profile": ["mine_json:data", "--seconds", "0.1"],
        "seen": ["page.txt", "--run", ".", "--data", "mine_json:lines", "--until", "2"],
        "verify": ["a.jsonl", "--workers", "0"],
        "diff": ["run", "run"],
        "find": ["run", str(loader.where(0)[0].record)],
        "replay": ["run", "--steps", "0:1"],
        "same": ["run", "run"],
        "show": ["run", "0"],
        "spikes": ["run"],
        "where": ["run", "0"],
    }
    # pages and what keeps running have tests of their own
    assert asked.keys() | {"browse", "report"} == set(COMMANDS)
    for name, args in asked.items():
        assert main([name, *args, "--json"]) == 0, name
        assert isinstance(json.loads(capsys.readouterr().out), dict | list)


def test_errors_of_others_are_one_line_with_their_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine_wrong.py").write_text(
        "from pipeline import Dataset\n"
        "def wrong(row):\n    return row['x']\n"
        "data = Dataset([{}] * 9).map(wrong)\n"
    )
    assert main(["profile", "mine_wrong:data"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "KeyError: 'x' (in stage 0: map 'wrong'" in err
    assert main(["convert", "mine_wrong:data", "a.jsonl", "--workers", "1"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "KeyError: 'x' (in stage 0: map 'wrong'" in err
    assert main(["profile", "mine_wrong:data", "--traceback"]) == 2
    assert "return row['x']" in capsys.readouterr().err


def test_who_stops_reading_gets_no_traceback(tmp_path: Path) -> None:
    for k in range(300):
        (tmp_path / f"{k}.txt").write_text("line\n")
    command = f"{sys.executable} -m pipeline manifest --check '{tmp_path}/*.txt' | head -n 1"
    env = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=env, check=False)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stream", ["ascii", "latin-1", "closed"])
def test_a_terminal_may_know_few_characters_or_none(tmp_path: Path, stream: str) -> None:
    (tmp_path / "mine_names.py").write_text(
        "from pipeline import Dataset\ndata = Dataset([{'größe': 1, '大': 2}])\n"
    )
    env = os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONIOENCODING": stream}
    closed = " >&-" if stream == "closed" else ""
    env |= {"PYTHONIOENCODING": "utf-8"} if closed else {}
    command = f"{sys.executable} -m pipeline inspect mine_names:data{closed}"
    done = subprocess.run(
        command, shell=True, capture_output=True, env=env, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    letter = {"ascii": rb"gr\xf6\xdfe", "latin-1": "größe".encode("latin-1"), "closed": b""}[stream]
    assert letter in done.stdout
    assert (rb"\u5927" in done.stdout) == (not closed)


def test_a_module_called_pipeline_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pipeline.py").write_text("data = 1\n")
    assert main(["check", "pipeline:data"]) == 2
    assert "Rename the file" in capsys.readouterr().err


def test_tab_offers_public_names_alone() -> None:
    offered = [name for name in dir(pipeline) if not name.startswith("_")]
    assert offered == sorted(pipeline.__all__)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["check", "mine"], "mine:dataset"),
        (["check", "mine_int:number"], "of the type int"),
        (["verify", "a.jsonl", "b.jsonl"], "quote it, as in 'data/*.parquet'"),
        (["verify", "a.jsonl", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["check", "mine_int:numbr"], "Is it mine_int:number?"),
        (["check", "mine_int:data", "--seed", "-1"], "seed=-1: give a whole number from 0 on"),
        (["audit", "mine_int:data", "--batch", "0"], "batch=0: give a whole number from 2 on"),
        (
            ["profile", "mine_int.py:data"],
            "named without .py, where it lies: run it with mine_int:data",
        ),
        (["profile", "mine_int:data", "--seconds", "0"], "'0': give a number of seconds above 0"),
        (["profile", "mine_int:data", "--step", "-1"], "--step -1: give module:function, or"),
        (["doctor", "mine_int:data", "--seconds", "nan"], "'nan': give a number of seconds above"),
        (["doctor", "mine_int:data", "--hosts", "x"], "'x': give numbers, as in 0,2"),
        (["show", "run", "0", "--chars", "-5"], "'-5': give a whole number from 1 on"),
    ],
)
def test_a_slip_names_what_was_meant(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "from pipeline import Dataset\nnumber, data = 3, Dataset(range(9))\n"
    Path("mine_int.py").write_text(text)
    for name in ("a.jsonl", "b.jsonl"):
        Path(name).write_text("{}\n")
    try:
        status = main(words)
    except SystemExit as exit:
        status = exit.code
    assert status == 2
    assert says in " ".join(capsys.readouterr().err.split())
