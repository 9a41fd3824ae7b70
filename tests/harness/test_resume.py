"""Killed at any moment and started again, a run goes on to the bits of one never killed."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from harness.checkpoint import Checkpoints
from harness.ledger import read
from harness.rundir import RunDir
from harness.sharding import make_mesh
from harness.step import TrainState, make_steps
from tests.harness.runs import (
    Workplace,
    at_step,
    bits,
    finished,
    mid_save,
    outcomes,
    unfinished,
    wait_until,
)

pytestmark = pytest.mark.slow


def final_state(run: Path) -> TrainState:
    cfg = RunDir(run).config()
    functions = make_steps(cfg, make_mesh(cfg))
    with Checkpoints(run / "checkpoints") as checkpoints:
        return checkpoints.restore(cfg.steps, functions)


def assert_same_run(run: Path, whole: Path) -> None:
    expected = {entry.step: bits(entry) for entry in read(whole / "ledger.jsonl")}
    lines = read(run / "ledger.jsonl")
    assert {entry.step for entry in lines} == set(expected) == set(range(40))
    assert [e for e in lines if bits(e) != expected[e.step]] == []
    leaves = zip(
        jax.tree.leaves(final_state(run)), jax.tree.leaves(final_state(whole)), strict=True
    )
    assert all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in leaves)
    assert RunDir(run).evaluation() == RunDir(whole).evaluation()


@pytest.mark.long
@pytest.mark.parametrize("devices", [1, 4])
def test_sigkill_at_steps_and_mid_save(
    workplace: Workplace, uninterrupted: Callable[[int], Path], devices: int
) -> None:
    name, run = f"killed-{devices}", workplace.path / f"killed-{devices}"
    torn = 0
    for when in (at_step(3), mid_save(0), at_step(13), mid_save(15), at_step(37)):
        status, _ = workplace.interrupt(name, signal.SIGKILL, when, devices=devices)
        assert status == -signal.SIGKILL
        torn += bool(unfinished(run))
    assert torn > 0  # else no kill fell into a save
    workplace.train(name, devices=devices)
    assert unfinished(run) == []
    assert_same_run(run, uninterrupted(devices))
    lines = read(run / "ledger.jsonl")
    assert len(lines) > 40  # steps after the last checkpoint were done twice
    assert max(entry.launch for entry in lines) == 5


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_and_exit(
    workplace: Workplace,
    uninterrupted: Callable[[int], Path],
    number: signal.Signals,
    status: int,
) -> None:
    name = number.name.lower()
    run = workplace.path / name
    found, out = workplace.interrupt(name, number, at_step(6))
    assert found == status, out
    assert "Run the same command again to resume" in out
    lines = read(run / "ledger.jsonl")
    assert finished(run)[-1] == lines[-1].step + 1 == len(lines) < 40
    workplace.train(name)
    assert_same_run(run, uninterrupted(1))
    assert len(read(run / "ledger.jsonl")) == 40  # nothing was done twice


@pytest.mark.long
def test_checkpoints_kept(uninterrupted: Callable[[int], Path]) -> None:
    run = uninterrupted(1)
    assert finished(run) == [0, 20, 35, 40]
    saved = json.loads((run / "checkpoints/35/data/loader.json").read_text())
    assert (saved["step"], saved["rows"]) == (35, 280)
    metadata = json.loads((run / "checkpoints/35/_CHECKPOINT_METADATA").read_text())
    assert metadata["custom_metadata"]["step"] == 35


@pytest.mark.long
def test_finished_run_says_so(workplace: Workplace, uninterrupted: Callable[[int], Path]) -> None:
    run = uninterrupted(1)
    before = (run / "ledger.jsonl").read_bytes()
    assert "nothing left to train" in workplace.train(run.name)
    assert (run / "ledger.jsonl").read_bytes() == before


@pytest.mark.long
def test_torn_ledger_line(workplace: Workplace, uninterrupted: Callable[[int], Path]) -> None:
    name, run = "torn", workplace.path / "torn"
    workplace.interrupt(name, signal.SIGKILL, at_step(7))
    ledger = run / "ledger.jsonl"
    whole = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(whole) + whole[-1][:40])
    assert len(read(ledger)) == len(whole)
    workplace.train(name)
    assert_same_run(run, uninterrupted(1))


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """Five lines of TOML over a Parquet file of one's own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [f"document {i}: {'so it goes, ' * (i % 7)}and on." for i in range(300)]
    pq.write_table(pa.table({"words": texts, "id": range(300)}), tmp_path / "mine.parquet")
    lines = [
        f'data.train = "{tmp_path}/mine.parquet"',
        'data.text = "words"',
        "data.held_out = 0.1",
    ]
    (tmp_path / "mine.toml").write_text("\n".join([*lines, "batch_size = 4", "seed = 3"]))
    return tmp_path / "mine.toml"


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "processes", "devices"),
    [("corpus", 1, 8), ("corpus", 2, 2), ("images", 1, 1), ("parquet", 1, 1)],
)
def test_each_kind_of_run_is_killed_and_resumed_to_the_same_bits(
    workplace: Workplace, digits: Path, parquet: Path, kind: str, processes: int, devices: int
) -> None:
    more = {
        "corpus": ("fsdp=2", "mesh.tensor=2") if devices == 8 else (),
        "images": (
            f"data.train={digits}",
            "data=examples.mnist:datasets",
            "task=harness.images:Classifier",
            "image.patch=7",
        ),
        "parquet": ("--config", str(parquet)),
    }[kind]
    name = f"{kind}-{processes}x{devices}"
    settings = ("steps=12", "save_every=4", *more)
    whole, run = workplace.path / f"{name}-whole", workplace.path / name
    found = outcomes(workplace.start_several(whole.name, processes, *settings, devices=devices))
    assert {status for status, _ in found} == {0}, found
    begun = workplace.start_several(name, processes, *settings, devices=devices)
    wait_until(lambda: at_step(6)(run), begun)
    begun[-1].kill()
    assert 0 not in [status for status, _ in outcomes(begun)]
    found = outcomes(workplace.start_several(name, processes, *settings, devices=devices))
    assert {status for status, _ in found} == {0}, found
    expected = {entry.step: bits(entry) for entry in read(whole / "ledger.jsonl")}
    assert set(expected) == {entry.step for entry in read(run / "ledger.jsonl")} == set(range(12))
    assert [e for e in read(run / "ledger.jsonl") if bits(e) != expected[e.step]] == []
    digests = [(r / "checkpoints/12/digests/digests.json").read_text() for r in (whole, run)]
    assert digests[0] == digests[1]
    assert RunDir(run).evaluation() == RunDir(whole).evaluation()
