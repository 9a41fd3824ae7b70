"""What a run that lacks something, or whose data changed, says: in a trainer's words, at once."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.config import Config, make
from harness.errors import ConfigError
from harness.metrics import Meter
from harness.plan import check_known
from harness.rundir import RunDir
from harness.task import make_task
from harness.train import _checkpoints as kept_checkpoints  # pyright: ignore[reportPrivateUsage]
from pipeline.errors import MismatchError

SETTINGS = [
    "width=16",
    "layers=1",
    "heads=2",
    "hidden=16",
    "length=32",
    "batch_size=4",
    "steps=6",
    "warmup=2",
]
UNAWAITED = "ignore::pytest.PytestUnraisableExceptionWarning"  # of Orbax, where a restore fails
pytestmark = pytest.mark.filterwarnings(UNAWAITED, "ignore:coroutine:RuntimeWarning")


def test_steps_that_a_ledger_has() -> None:
    check_known(range(20, 21), {20})
    with pytest.raises(ConfigError, match="no line for step 0; it has 20:21"):
        check_known(range(3), {20})
    with pytest.raises(ConfigError, match="it has no line at all"):
        check_known(range(3), ())


def test_a_total_that_is_not_known() -> None:
    meter = Meter("evaluate", total=None, unit="batches", clock=iter([0.0, 1.0]).__next__)
    meter.advance()
    meter.advance()
    assert str(meter) == "evaluate 2 batches  1.0/s"


@pytest.mark.parametrize("file", ["ledger.jsonl", "checkpoints/0"])
def test_settings_that_are_lost(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("{}\n")
    with pytest.raises(ConfigError, match=r"config\.json is gone.*python -m harness settings"):
        RunDir(tmp_path).begun()


def test_settings_of_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--run", str(tmp_path / "none")]) == 2
    assert "there is no run in" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_profile_of_no_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--run", str(tmp_path / "run"), "--set", *SETTINGS, "--profile", "6:8"]
    assert main(words) == 2
    assert "--profile 6:8: this launch trains steps 0:6" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["--from", "0"], ["--profile", "1:2"], ["--deterministic"]])
def test_options_that_a_policy_would_not_heed(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert main(["train", "--run", str(tmp_path), "--on-spike", "z=8", *words]) == 2
    assert "--on-spike goes without" in capsys.readouterr().err


@pytest.mark.parametrize(("checkpoint", "told"), [("0", "or remove"), ("5", "another folder.")])
def test_other_data(tmp_path: Path, checkpoint: str, told: str) -> None:
    (tmp_path / "checkpoints" / checkpoint).mkdir(parents=True)
    theirs = "the state is of another dataset. source: a -> b. Intended? load_state_dict(s)."
    with pytest.raises(MismatchError) as raised, RunDir(tmp_path).same_data():
        raise MismatchError(theirs)
    assert str(raised.value).startswith(f"the data are not those that {tmp_path} was begun with. ")
    assert "source: a -> b. Give" in str(raised.value)
    assert told in str(raised.value)
    assert "load_state_dict" not in str(raised.value)


@pytest.mark.long
def test_a_run_on_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [f"line {i} of the file " * 4 for i in range(60)]
    lines = [json.dumps({"words": text}) + "\n" for text in texts]
    Path("a.jsonl").write_text("".join(lines))
    data = ["data.train=a.jsonl", "data.text=words", "data.held_out=0.1"]
    train = ["train", "--run", "run"]
    assert main([*train, "--set", *SETTINGS, *data]) == 0
    assert "/0 batches" not in capsys.readouterr().out
    for text, status in ((texts[0], {0, 1}), ("not there", {1})):
        Path("page").write_text(text)
        assert main(["seen", "page", "--run", "run"]) in status
        assert ("it is record 0" in capsys.readouterr().out) == (text == texts[0])

    Path("a.jsonl").write_text("".join(lines[1:]))
    for words in ([*train, "--steps", "8"], ["show", "--run", "run", "--steps", "1:2"]):
        assert main(words) == 2
        assert "the data are not those that" in capsys.readouterr().err
    Path("a.jsonl").write_text("".join(lines))
    shutil.rmtree("run/checkpoints/6")
    assert main([*train, "--steps", "8", "--from", "0"]) == 0
    shutil.rmtree("run/checkpoints")
    assert main([*train, "--steps", "9"]) == 2
    assert "goes up to step 7, but no checkpoint is in" in capsys.readouterr().err


@pytest.mark.long
def test_a_run_that_goes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "--run", str(tmp_path / "run")]
    assert main([*train, "--set", *SETTINGS, "evaluate.batches=1"]) == 0
    assert main([*train, "--from", "0", "--steps", "3"]) == 0
    (tmp_path / "run/evaluation.json").unlink()  # as if it were killed before the evaluation
    capsys.readouterr()
    assert main(train) == 0
    assert "resume" in capsys.readouterr().out
    config = tmp_path / "run/config.json"
    whole = config.read_text()
    config.write_text(whole.replace('"learning_rate": 0.004', '"learning_rate": 0.04'))
    for words in ([*train, "--steps", "8"], ["sample", *train[1:], "--tokens", "1"]):
        assert main(words) == 2
        told = capsys.readouterr().err
        assert "has other settings than checkpoint 6 was saved under: learning_rate: " in told
    config.write_text(whole.replace('"save_every": 50', '"save_every": 4'))
    assert main([*train, "--steps", "8"]) == 0
    launches = tmp_path / "run/launches.jsonl"
    launches.write_text("{\n" + launches.read_text())
    assert main(["replay", *train[1:], "--steps", "0:2"]) == 2
    assert "DamageError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "def __init__(self, cfg): self.x = cfg.no_such",
            r"called with the config.*AttributeError.*mine\.py:2",
        ),
        ("def __init__(self): pass", "called with the config.*TypeError"),
        ("def __init__(self, cfg): pass", "makes a Mine, which lacks model, losses, show"),
    ],
)
def test_a_task_that_cannot_be_made_is_told_by_its_line(
    body: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(f"class Mine:\n    {body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(ConfigError, match=message):
        make_task(Config(task="mine:Mine"))
    monkeypatch.delitem(sys.modules, "mine", raising=False)


def test_a_refused_start_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", "--run", str(run), "--set", "data=math:no_such"]) == 2
    assert "has no no_such" in capsys.readouterr().err
    assert not run.exists()
    run.mkdir()
    assert main(["train", "--run", str(run), "--set", "data=math:no_such"]) == 2
    assert run.exists()


@pytest.mark.long
def test_weights_that_do_not_fit_leave_no_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for made in (True, False):
        run = tmp_path / f"run-{made}"
        if made:
            run.mkdir()
        assert main(["train", "--run", str(run), "--set", *SETTINGS, "init=none"]) == 2
        assert "holds no *.safetensors" in capsys.readouterr().err
        assert not (run / "config.json").exists()
        assert run.exists() == made


def test_a_folder_of_files_is_not_the_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    assert main(["train", "--run", str(tmp_path / "run"), "--set", f"data={tmp_path}"]) == 2
    assert f"data.train='{tmp_path}/*.parquet'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "a.parquet"]


def test_a_path_beside_the_run_has_its_own_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    RunDir(run).begin(Config())
    assert main(["seen", str(tmp_path / "missing.txt"), "--run", str(run)]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path}/missing.txt: give a path that is there" in told
    assert not (tmp_path / "data").exists()  # said before anything is made


def test_the_best_is_judged_by_evaluations_that_hold(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for step, loss in ((10, 1.5), (20, 1.0), (10, 2.0)):  # went back, and step 20 is set aside
        run.keep_evaluation({"step": step, "loss": loss, "tokens": 8}, last=False)
    (run.checkpoints / "10/state").mkdir(parents=True)
    assert [(e["step"], e["loss"]) for e in run.evaluations()] == [(10, 2.0), (20, 1.0)]
    with kept_checkpoints(run, make({"evaluate.every": 10})) as checkpoints:
        assert checkpoints.best == 10
