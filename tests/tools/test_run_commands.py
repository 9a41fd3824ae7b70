"""Commands on a run's folder: what they answer, their exit statuses, and whose code they import."""

from __future__ import annotations

import json
import socket
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader
from pipeline.__main__ import main
from pipeline.debug.journal import Journal, Run

HERE = "tests.tools.test_run_commands"


def _tokens(text: str) -> dict[str, Any]:
    return {"tokens": np.frombuffer(text.encode(), np.uint8).astype(np.int32)}


def packed() -> Dataset:
    """Documents packed into rows."""
    texts = [f"document {i}" for i in range(200)]
    return Dataset(texts, seed=1).shuffle().map(_tokens).pack({"tokens": 32}).repeat()


def pictures() -> Dataset:
    """Rows by position, each with a picture."""
    kept = np.arange(50 * 48, dtype=np.uint8).reshape(50, 4, 4, 3)
    return Dataset({"n": np.arange(50), "seen": kept}, seed=2).shuffle().repeat()


def _with_upper(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "upper": row["text"].upper()}


DATA = pictures()
TEXTS = Dataset({"text": ["to be or not", "that is", "the question " * 100, "end"]})
TEXTS = TEXTS.map(_with_upper)


def train(folder: Path, dataset: Dataset, steps: int = 60, **options: Any) -> None:
    """A loop whose loss has a spike at step 40."""
    rng = np.random.default_rng(0)
    loader = Loader(dataset, 4)
    with Journal(folder, loader, **options) as journal:
        for step in range(steps):
            next(loader)
            journal.log(loss=2 + rng.normal(0, 0.01) + (step == 40), grad_norm=1.0)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Any:
    """A command's status, its JSON or lines, and what it said beside."""

    def asked(*words: object, plain: bool = False) -> tuple[int, Any, str]:
        status = main([*map(str, words), *([] if plain else ["--json"])])
        out, err = capsys.readouterr()
        return status, out if plain or not out else json.loads(out), err

    return asked


def test_spikes(tmp_path: Path, ask: Any) -> None:
    train(tmp_path, packed())
    status, found, _ = ask("spikes", tmp_path)
    assert status == 0
    assert [(s["step"], s["fields"], s["lasted"]) for s in found] == [(40, ["loss"], 1)]
    assert found[0]["score"] > 5
    assert ask("spikes", tmp_path, "--threshold", 1e6)[:2] == (0, [])
    assert ask("spikes", tmp_path, plain=True)[1].splitlines()[1].split()[0] == "40"
    assert ask("spikes", tmp_path, "--window", 3)[0] == 2


def test_what_is_told_now_and_then_is_no_spike_between(tmp_path: Path, ask: Any) -> None:
    loader = Loader(Dataset(range(400)), 4)
    with Journal(tmp_path, loader) as journal:
        for step, _ in enumerate(loader):
            loss = None if step % 2 else float("nan") if step == 70 else 1.0
            norm = None if step % 5 else float("inf") if step == 85 else 1.0
            journal.log(loss=loss, grad_norm=norm)
    found = [(s["step"], s["score"], s["fields"]) for s in ask("spikes", tmp_path)[1]]
    assert found == [(70, None, ["loss"]), (85, None, ["grad_norm"])]


def test_replay_and_where_and_find_and_show(tmp_path: Path, ask: Any) -> None:
    train(tmp_path, packed(), data=f"{HERE}:packed")
    status, proof, err = ask("replay", tmp_path, "--steps", "40:60")
    assert (status, proof["proved"], proof["equal"]) == (0, 20, True)
    assert f"data: {HERE}:packed, as {tmp_path} noted it" in err
    assert ask("replay", tmp_path, "--steps", "40:61")[0] == 2
    status, rows, _ = ask("where", tmp_path, 40)
    assert (status, [row["row"] for row in rows]) == (0, [0, 1, 2, 3])
    first = rows[0]["records"][0]
    status, found, _ = ask("find", tmp_path, first["record"])
    assert status == 0
    assert 40 in found["steps"]
    status, shown, _ = ask("show", tmp_path, 40, "--row", 0)
    texts = {record["text"] for record in shown["rows"][0]["records"]}
    assert f"document {first['record']}" in texts
    assert shown["rows"][0]["fields"]["tokens"][0] > 0
    status, _, err = ask("show", tmp_path, 40, "--row", 4)
    assert (status, "step 40 has no row 4" in err) == (2, True)
    assert ask("find", tmp_path, "x")[0] == 2
    assert ask("find", tmp_path, 200)[0] == 2
    assert ask("find", tmp_path, 0, "--steps", "0:1")[0] in (0, 1)
    assert ask("where", tmp_path, 60)[0] == 2


def test_pictures_are_written_as_files(tmp_path: Path, ask: Any) -> None:
    train(tmp_path / "run", DATA, 3)  # a global of this module: its name is found
    out = tmp_path / "pictures"
    status, shown, err = ask("show", tmp_path / "run", 1, "--out", out, "--row", 2)
    assert f"data: {HERE}:DATA" in err
    assert status == 0
    assert shown["files"] == [str(out / "step1-batch0-row2-seen.png")]
    file = Path(shown["files"][0]).read_bytes()
    assert file[16:24] == (4).to_bytes(4, "big") * 2  # width and height
    at = file.index(b"IDAT")
    lines = zlib.decompress(file[at + 4 : at + 4 + int.from_bytes(file[at - 4 : at], "big")])
    picture = np.frombuffer(lines, np.uint8).reshape(4, 13)[:, 1:].reshape(4, 4, 3)
    assert np.array_equal(picture, Loader(DATA, 4)[1]["seen"][2])


def test_same_and_diff(tmp_path: Path, ask: Any) -> None:
    train(tmp_path / "a", packed())
    train(tmp_path / "b", packed(), 50)
    train(tmp_path / "c", Dataset(range(200), seed=1).shuffle(), 50)
    status, found, _ = ask("same", tmp_path / "a", tmp_path / "b")
    assert (status, found["equal"], found["batches"]) == (0, 50, 50)
    assert "50 of 50 batches equal" in ask("same", tmp_path / "a", tmp_path / "b", plain=True)[1]
    status, found, _ = ask("same", tmp_path / "a", tmp_path / "c")
    assert (status, found["first_differing_step"]) == (1, 0)
    assert "source" in found["explained_by"]
    assert "give both datasets" in found["note"]
    lines = (tmp_path / "b/ledger.jsonl").read_text().splitlines()
    lines[30] = lines[30].replace('"loss_bits": "', '"loss_bits": "0')
    (tmp_path / "b/ledger.jsonl").write_text("\n".join(lines) + "\n")
    status, found, _ = ask("diff", tmp_path / "a", tmp_path / "b")
    assert (status, found["data"]["same"], found["first_differing_loss"]) == (1, True, 30)
    assert ask("diff", tmp_path / "a", tmp_path / "a")[0] == 0
    assert ask("same", tmp_path / "a", tmp_path / "nowhere")[0] == 2


def _edited(file: Path, line: int, **change: Any) -> None:
    lines = [json.loads(text) for text in file.read_text().splitlines()]
    lines[line] |= change
    file.write_text("".join(json.dumps(x) + "\n" for x in lines))


@pytest.mark.parametrize("field", ["digest", "chain"])
def test_a_line_that_was_edited_vouches_for_nothing(tmp_path: Path, ask: Any, field: str) -> None:
    train(tmp_path / "a", packed())
    train(tmp_path / "b", packed())
    told = ask("same", tmp_path / "a", tmp_path / "b", plain=True)[1]
    assert "the chains of 60 and 60 lines follow from their digests" in told
    _edited(tmp_path / "b/ledger.jsonl", 41, **{field: "0" * 32})
    status, _, err = ask("same", tmp_path / "a", tmp_path / "b")
    assert (status, "the line of step 41 in" in err) == (2, True)
    for text in ("no hex", ""):
        _edited(tmp_path / "b/ledger.jsonl", 41, digest=text)
        assert ask("same", tmp_path / "a", tmp_path / "b")[0] == 2


def test_a_line_behind_the_first_difference_does_not_matter(tmp_path: Path, ask: Any) -> None:
    train(tmp_path / "a", packed())
    train(tmp_path / "b", DATA)
    _edited(tmp_path / "b/ledger.jsonl", 41, digest="0" * 32)
    status, found, _ = ask("same", tmp_path / "a", tmp_path / "b")
    assert (status, found["first_differing_step"], found["lines_checked"]) == (1, 0, [1, 1])


def test_runs_without_a_step_in_common_are_not_told_apart(tmp_path: Path, ask: Any) -> None:
    train(tmp_path / "a", packed(), 3)
    with Journal(tmp_path / "b", loader := Loader(packed(), 4)) as journal:
        next(loader)
        journal.log(loss=0.0, step=7)
    for command in ("same", "diff"):
        status, _, err = ask(command, tmp_path / "a", tmp_path / "b")
        assert (status, "no step in common" in err) == (2, True)
        assert "a has steps 0 to 2" in err


def test_files_that_cannot_be_written_are_refused_before_anything_is_done(
    tmp_path: Path, ask: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "a", packed(), 3)
    for words in (
        ["profile", "no_such_module:data", "--html"],
        ["profile", "no_such_module:data", "--trace"],
        ["report", tmp_path / "a", "-o"],
        ["seen", tmp_path / "page.txt", "--run", tmp_path / "a", "--proof"],
    ):
        for file, says in ((tmp_path / "none/x", "there is no folder"), (tmp_path, "is a folder")):
            with pytest.raises(SystemExit) as ended:
                ask(*words, file)
            assert ended.value.code == 2
            assert says in capsys.readouterr().err


def test_a_text_is_shown_once(tmp_path: Path, ask: Any) -> None:
    train(tmp_path, TEXTS, 1)
    for chars in (2000, 20):
        told = ask("show", tmp_path, 0, "--chars", chars, plain=True)[1]
        for start in ("to be or not", "that is", "the question", "end"):
            assert told.count(start) == (1 if start != "the question" or chars == 20 else 100)
    assert "upper: TO BE OR NOT" in told  # another text than the record's
    assert "upper: END" in told


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": "six"},
        {"batch_size": []},
        {"hosts": "two"},
        {"hosts": 0},
        {"dataset": 5},
        {"share": [[1]]},
        {"launch": "first"},
        {"remainder": None},
    ],
)
def test_a_damaged_launch_is_named(tmp_path: Path, ask: Any, change: dict[str, Any]) -> None:
    train(tmp_path / "a", packed(), 3, data=f"{HERE}:packed")
    _edited(tmp_path / "a/launches.jsonl", 0, **change)
    for words in (["where", tmp_path / "a", 1], ["same", tmp_path / "a", tmp_path / "a"]):
        status, _, err = ask(*words)
        assert (status, "line 1 of" in err, "launches.jsonl is damaged" in err) == (2, True, True)


def test_files_that_are_not_there_or_damaged_are_named(tmp_path: Path, ask: Any) -> None:
    train(tmp_path / "a", packed(), 3, data=f"{HERE}:packed")
    _edited(tmp_path / "a/states.jsonl", 0, state={"step": 0, "lanes": 5})
    status, _, err = ask("where", tmp_path / "a", 1)
    assert (status, "states.jsonl: the state of step 0 is damaged" in err) == (2, True)
    (tmp_path / "a/states.jsonl").unlink()  # then from the beginning
    assert ask("where", tmp_path / "a", 1)[0] == 0
    (tmp_path / "a/launches.jsonl").unlink()
    for words in (
        ["where", tmp_path / "a", 1, "--data", f"{HERE}:packed"],
        ["same", *2 * [tmp_path / "a"]],
    ):
        status, _, err = ask(*words)
        assert (status, "launches.jsonl has no line of launch 0" in err) == (2, True)


def test_steps_and_ports_that_there_are_not(
    tmp_path: Path, ask: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "a", packed(), 3, data=f"{HERE}:packed")
    status, _, err = ask("find", tmp_path / "a", 7, "--steps", "5:9")
    assert (status, "has no line for step 5: they are from 0 to 2" in err) == (2, True)
    status, _, err = ask("show", tmp_path / "a", 1, "--row", 4)
    assert (status, "step 1 has no row 4: its rows are 0 to 3." in err) == (2, True)
    with pytest.raises(SystemExit):
        ask("browse", tmp_path / "a", "--port", 99999)
    assert "a port is a number from 0 to 65535" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        status, _, err = ask("browse", tmp_path / "a", "--port", taken.getsockname()[1])
    assert (status, "Give another, or leave --port out" in err) == (2, True)


def test_batch_sizes_that_differ_are_named(tmp_path: Path, ask: Any) -> None:
    train(tmp_path / "a", packed(), 5)
    with Journal(tmp_path / "b", loader := Loader(packed(), 8)) as journal:
        next(loader)
        journal.log(loss=0.0)
    status, found, _ = ask("same", tmp_path / "a", tmp_path / "b")
    assert status == 1
    assert "batch sizes differ: 4 and 8" in found["note"]


def test_no_code_of_a_run_s_folder_is_executed(
    tmp_path: Path, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, packed(), 3, data="planted_in_a_run:data")
    (tmp_path / "planted_in_a_run.py").write_text("raise SystemExit('executed')\n")
    path = list(sys.path)
    for inside in (True, False):
        if inside:
            monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", ["", str(tmp_path), *path])
        status, _, err = ask("replay", tmp_path, "--steps", "0:1")
        assert status == 2
        assert "data: planted_in_a_run:data" in err
        assert "executed" not in err


def test_another_dataset_is_named_before_anything_is_said(tmp_path: Path, ask: Any) -> None:
    train(tmp_path, packed(), 3)
    for words in (["replay", tmp_path, "--steps", "0:2"], ["where", tmp_path, 0]):
        status, out, err = ask(*words, "--data", f"{HERE}:pictures")
        assert (status, out) == (2, "")
        assert "was trained on another dataset" in err
        assert "stage" in err
    status, _, err = ask("show", tmp_path, 0)
    assert status == 2
    assert "noted no name of its dataset" in err


def test_old_ledgers_have_spikes_and_say_who_replays_them(tmp_path: Path, ask: Any) -> None:
    line = {"launch": 0, "loss": 1.0, "loss_bits": "3f800000", "grad_norm": 1.0}
    line |= {"digest": "0" * 16, "rows": [0, 8], "seconds": {"data": 0.0, "step": 0.1, "save": 0.0}}
    lines = [{**line, "step": s, "data_step": s, "loss": 1.0 + (s == 30)} for s in range(40)]
    text = "".join(json.dumps(x) + "\n" for x in lines)
    (tmp_path / "ledger.jsonl").write_text(text)
    (tmp_path / "launches.jsonl").write_text('{"launch": 0, "step": 0, "mesh": {"data": 1}}\n')
    assert [s["step"] for s in ask("spikes", tmp_path)[1]] == [30]
    status, _, err = ask("replay", tmp_path, "--steps", "0:2", "--data", f"{HERE}:packed")
    assert status == 2
    assert "python -m harness replay" in err
    assert len(Run(tmp_path).ledger) == 40
