"""A loss spike from its record back: found, shown, blamed, forked away; the first run untouched."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from harness.__main__ import main
from harness.checkpoint import Checkpoints
from harness.config import parse
from harness.data import prepare
from harness.ledger import Entry, read
from harness.metrics import Screen
from harness.poison import document_at, plant
from harness.rundir import RunDir
from harness.sharding import make_mesh
from harness.spikes import latest
from harness.step import make_steps
from pipeline.debug.documents import Document
from tests.harness.runs import TINY, Workplace

pytestmark = pytest.mark.long
SETTINGS = (*TINY, "batch_size=32", "steps=60", "save_every=10", "keep_every=10")
BAD = 31  # the step that the bad document is drawn in


def command(workplace: Workplace, *words: str, devices: int = 1, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words],
        env=workplace.environment(devices),
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def planted(workplace: Workplace) -> tuple[Path, Document]:
    """A run over a corpus with a bad document, and the document."""
    corpus = prepare(workplace.path / "data", Screen())
    run = RunDir(workplace.path / "spiked")
    cfg = run.config(parse(SETTINGS))
    bad = document_at(corpus, cfg, BAD)
    plant(corpus, workplace.path / "poisoned", {bad.record: "constant"})
    words = ["train", "--run", str(run.path), "--steps", "40", "--set", *SETTINGS]
    command(workplace, *words, "data=../poisoned")
    return run.path, bad


def files(run: Path) -> dict[str, str]:
    return {
        str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(run.rglob("*"))
        if p.is_file() and p.name != "lock"
    }


def lines(run: Path) -> dict[int, Entry]:
    return latest(read(run / "ledger.jsonl"))


def parameters(run: Path, step: int) -> list[bytes]:
    cfg = RunDir(run).config()
    functions = make_steps(cfg, make_mesh(cfg))
    keep = Checkpoints(run / "checkpoints", keep=9, keep_every=1, clean=False)
    with closing(keep) as checkpoints:
        state = checkpoints.restore(step, functions)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_from_the_spike_to_its_record(
    planted: tuple[Path, Document], capsys: pytest.CaptureFixture[str]
) -> None:
    run, bad = planted
    before = files(run)
    capsys.readouterr()
    assert main(["spikes", "--run", str(run), "--json"]) == 0
    spikes = told(capsys)
    worst = max(spikes, key=lambda s: s["score"])
    assert worst["peak"] == BAD
    assert worst["score"] >= 5

    assert main(["inspect", "--run", str(run), "--step", str(BAD), "--top", "4", "--json"]) == 0
    rows = told(capsys)["rows"]
    assert len(rows) == 4
    here = [d for d in rows[0]["documents"] if d["name"] == bad.name]
    assert here
    assert "times" in here[0]["repeats"]
    assert rows[0]["gradnorm"] > 0

    assert main(["blame", "--run", str(run), "--step", str(BAD), "--json"]) == 0
    verdict = told(capsys)
    assert (verdict["kind"], verdict["step"]) == ("data", BAD)
    assert [d["name"] for d in verdict["documents"]] == [bad.name]
    assert verdict["evaluations"] <= 5 + 2 * 5
    assert f"fork --run {run} --without {bad.name}" in verdict["command"]
    assert files(run) == before


def test_a_step_that_does_not_stand_out(
    planted: tuple[Path, Document], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["blame", "--run", str(planted[0]), "--step", "26", "--json"]) == 1
    assert told(capsys)["kind"] == "undecided"


def test_other_bits_are_the_machine_s(
    planted: tuple[Path, Document], capsys: pytest.CaptureFixture[str]
) -> None:
    # beside it: the settings name the data by where they lie
    run = planted[0].with_name("other-bits")
    shutil.copytree(planted[0], run)
    ledger = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    ledger[24]["loss_bits"] = f"{int(ledger[24]['loss_bits'], 16) ^ 1:08x}"
    (run / "ledger.jsonl").write_text("".join(json.dumps(x) + "\n" for x in ledger))
    assert main(["blame", "--run", str(run), "--step", str(BAD), "--json"]) == 0
    verdict = told(capsys)
    assert (verdict["kind"], verdict["step"]) == ("hardware", 24)
    assert "rewind" in verdict["command"]

    launches = [json.loads(x) for x in (run / "launches.jsonl").read_text().splitlines()]
    launches[0]["manifest"]["device"] = "another"
    (run / "launches.jsonl").write_text(json.dumps(launches[0]) + "\n")
    assert main(["blame", "--run", str(run), "--step", str(BAD), "--json"]) == 1
    assert "device another -> " in told(capsys)["summary"]


@pytest.mark.parametrize("devices", [1, 4])
def test_masking_from_a_checkpoint_equals_masking_from_the_start(
    workplace: Workplace, planted: tuple[Path, Document], devices: int
) -> None:
    run, bad = workplace.path / f"unmasked-{devices}", planted[1]
    words = ["train", "--run", str(run), "--steps", "36", "--set", *SETTINGS]
    command(workplace, *words, "data=../poisoned", devices=devices)
    before = files(run)
    others = [f"train-00000-of-00004.arrayrecord:{k}" for k in (5, 70, 900, 2000)]
    (workplace.path / "removed.txt").write_text("\n".join([bad.name, *others]))
    forked = [workplace.path / f"masked-{devices}", workplace.path / f"masked-early-{devices}"]
    without = ["fork", "--run", str(run), "--without", str(workplace.path / "removed.txt")]
    command(workplace, *without, "--fork", str(forked[0]), devices=devices)
    command(workplace, *without, "--fork", str(forked[1]), "--to", "0", devices=devices)
    assert files(run) == before
    one, other = (lines(fork) for fork in forked)
    assert {s: e.loss_bits for s, e in one.items()} == {s: e.loss_bits for s, e in other.items()}
    assert one[BAD].digest == lines(run)[BAD].digest  # the batch stays what it was
    assert one[BAD].loss_bits != lines(run)[BAD].loss_bits
    finals = [sorted((fork / "checkpoints").iterdir())[-1].name for fork in forked]
    assert finals == ["36", "36"]
    if devices == 1:
        assert parameters(forked[0], 36) == parameters(forked[1], 36)
        assert parameters(forked[0], 36) != parameters(run, 36)
    out = command(workplace, "replay", "--run", str(forked[0]), "--steps", "31:36", devices=devices)
    assert "5 steps proved equal" in out


@pytest.mark.parametrize("how", [["--skip", "30:33"], ["--skip", "30:33", "--consume"]])
def test_rewind_removes_the_spike(
    workplace: Workplace, planted: tuple[Path, Document], tmp_path: Path, how: list[str]
) -> None:
    run, _ = planted
    before, fork = files(run), tmp_path / "fork"
    words = ["rewind", "--run", str(run), "--to", "25", "--fork", str(fork), *how]
    command(workplace, *words)
    assert files(run) == before
    old, new = lines(run), lines(fork)
    assert list(new) == list(range(40))
    assert all(new[s].loss_bits == old[s].loss_bits for s in range(30))
    consumes = "--consume" in how
    assert new[33].data_step == (33 if consumes else 36)
    assert [new[s].grad_norm for s in range(30, 33)] == [0] * 3 or not consumes
    if not consumes:
        assert max(e.grad_norm or 0 for s, e in new.items() if s > 20) < (old[BAD].grad_norm or 0)
    else:
        assert (new[33].loss or 9) < (old[33].loss or 0) + 0.5
    kept = json.loads((fork / "checkpoints/40/_CHECKPOINT_METADATA").read_text())
    lineage = kept["custom_metadata"]["lineage"]
    assert lineage["skipped"] == [[30, 33]]
    assert lineage["how"] == ("consume" if consumes else "jump")
    assert "proved equal" in command(workplace, "replay", "--run", str(fork), "--steps", "28:38")
    (fork / "fork.json").unlink()
    refused = subprocess.run(
        [sys.executable, "-m", "harness", "train", "--run", str(fork), "--steps", "42"],
        env=workplace.environment(),
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert "fork.json does not say" in refused.stderr


def test_substituted_records_never_come(
    workplace: Workplace, planted: tuple[Path, Document], tmp_path: Path
) -> None:
    run, bad = planted
    fork = tmp_path / "fork"
    words = ["fork", "--run", str(run), "--without", bad.name, "--mode", "substitute"]
    command(workplace, *words, "--fork", str(fork))
    worst = max(e.grad_norm or 0 for s, e in lines(fork).items() if s > 20)
    assert worst < (lines(run)[BAD].grad_norm or 0) / 2


def test_training_goes_back_by_itself(workplace: Workplace, planted: tuple[Path, Document]) -> None:
    run = workplace.path / "watched"
    words = ["train", "--run", str(run), "--steps", "40", "--set", *SETTINGS, "data=../poisoned"]
    policy = ["--on-spike", "z=6,back=5,skip=4,times=2"]
    out = command(workplace, *words, *policy)
    assert f"step {BAD}" in out or f"step {BAD - 1}" in out
    assert max(lines(run)) <= BAD + 1
    after = lines(workplace.path / "watched-1")
    assert list(after) == list(range(40))
    command(workplace, *words, *policy)
    assert lines(workplace.path / "watched-1") == after


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["rewind", "--to", "35", "--skip", "20:30"], "begins before checkpoint"),
        (["rewind", "--to", "35", "--consume"], "give --skip"),
        (["rewind", "--to", "35", "--set", "width=64"], "with --set width=64 the fork could not"),
        (["rewind", "--to", "35", "--set", "length=32"], "stage 3: pack split"),
        (["rewind", "--to", "35", "--set", "data.train=no.jsonl"], "no.jsonl does not exist"),
        (["fork", "--without", "nothing"], "names no record"),
        (["fork", "--without", "train-00000-of-00004.arrayrecord:999999"], "names no one record"),
        (["fork", "--without"], "expected at least one"),
        (["blame", "--step", "400"], "no line for step 400; it has 0:40"),
        (["inspect", "--step", "40"], "no line for step 40; it has 0:40"),
        (["inspect", "--step", "30", "--rank", "size"], "loss, gradnorm"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    planted: tuple[Path, Document],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    why: str,
) -> None:
    verb, *more = words
    target = ["--fork", str(tmp_path / "x")] if verb in ("rewind", "fork") else []
    arguments = [verb, "--run", str(planted[0]), *target, *more]
    try:
        status = main(arguments)
    except SystemExit as e:
        status = e.code
    assert status == 2
    err = capsys.readouterr().err
    assert why in err
    assert "Traceback" not in err
    assert not (tmp_path / "x").exists()
