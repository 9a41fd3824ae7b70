"""What is told of a run beside its ledger: where time went, metrics, utilisation, traces."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import ANY

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from harness.__main__ import main
from harness.config import make
from harness.data import Corpus
from harness.doctor import check, differences, manifest
from harness.errors import CheckpointError, ConfigError, DamageError
from harness.evaluate import Score, evaluate
from harness.files import read_lines
from harness.goodput import BUCKETS, Clock, account, process_began, report
from harness.ledger import Entry
from harness.metrics import Screen
from harness.mfu import PEAKS, peak, token_flops, utilisation
from harness.plan import route, stages
from harness.rundir import RunDir
from harness.sharding import make_mesh
from harness.step import make_steps
from harness.task import Language
from harness.tokens import Bytes
from harness.watch import tensorboard, wandb_run
from pipeline import Dataset
from pipeline.errors import MissingExtraError
from tests.harness.runs import TINY


def test_nested_time_is_counted_once_and_all_of_it_somewhere() -> None:
    at = [10.0]
    clock = Clock(None, 0, began=4.0, now=lambda: at[0])
    for bucket, seconds in (("step", 3.0), ("save", 2.0), ("step", 1.0)):
        with clock(bucket):
            at[0] += seconds / 2
            with clock("data_wait"):
                at[0] += 0.5
            at[0] += seconds / 2
    at[0] += 7.0
    clock.keep()
    assert clock.seconds["init"] == 6.0 + 7.0
    assert (clock.seconds["step"], clock.seconds["save"]) == (4.0, 2.0)
    assert clock.seconds["data_wait"] == 1.5
    assert sum(clock.seconds.values()) == at[0] - 4.0


def test_compilation_is_taken_out_of_its_bucket() -> None:
    at = [0.0]
    clock = Clock(None, 0, began=0.0, now=lambda: at[0])
    with clock("evaluation"):
        at[0] = 5.0
        clock.compiled("/jax/core/compile/backend_compile_duration", 3.0)
        clock.compiled("/jax/another/event", 1.0)
    assert (clock.seconds["evaluation"], clock.seconds["compile"]) == (2.0, 3.0)


def test_restarts_and_lines_written_on_the_way() -> None:
    def line(launch: int, began: float, until: float, **seconds: float) -> dict[str, Any]:
        return {"launch": launch, "began": began, "until": until, "seconds": seconds}

    lines = [line(0, 0, 5, init=5.0), line(0, 0, 10, init=5.0, step=5.0)]
    lines += [line(1, 14, 20, restore=2.0, replayed_steps=4.0)]
    spent = account(lines)
    assert spent == {**dict.fromkeys(BUCKETS, 0.0), "init": 5.0, "step": 5.0, "stopped": 4.0} | {
        "restore": 2.0,
        "replayed_steps": 4.0,
    }
    assert report(lines)["wall"] == sum(spent.values()) == 20.0
    assert report(lines)["goodput"] == 0.25


def test_a_process_knows_when_it_began() -> None:
    assert 0 <= time.time() - process_began() < 24 * 3600


@pytest.mark.long
@pytest.mark.slow
def test_a_run_s_buckets_sum_to_its_wall_time(
    uninterrupted: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = uninterrupted(1)
    assert main(["goodput", "--run", str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(told["seconds"].values()) == pytest.approx(told["wall"], rel=0.01)
    for bucket in ("init", "compile", "step", "save", "evaluation", "data_wait"):
        assert told["seconds"][bucket] > 0, bucket
    assert main(["goodput", "--run", str(run)]) == 0
    assert "replayed_steps" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.slow
def test_metrics_are_a_line_every_few_steps(uninterrupted: Callable[[int], Path]) -> None:
    lines = [line for line in read_lines(uninterrupted(1) / "metrics.jsonl") if "loss" in line]
    assert [line["step"] for line in lines] == list(range(4, 40, 5))
    assert all(line["tokens_per_second"] > 0 <= line["data_wait"] <= 1 for line in lines)


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H200", 989),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H100 PCIe", 756),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5e", 197),
        ("TPU v5p", 459),
        ("TPU v5", 459),
        ("TPU v6 lite", 918),
        ("TPU v6e", 918),
    ],
)
def test_peaks(kind: str, tflops: float) -> None:
    found = peak(kind)
    assert found is not None
    assert found.tflops == tflops
    assert utilisation(1e12, tflops / 2, 1, kind) == 0.5


def test_flops_of_a_token_in_both_conventions() -> None:
    cfg = make({"width": 64, "heads": 4, "layers": 3, "hidden": 96, "length": 128})
    products = 3 * (4 * 64 * 64 + 3 * 64 * 96) + 64 * 264
    attention = 12 * 3 * 64 * 128  # two products of each pair of tokens, and their gradients
    found = token_flops(cfg)
    assert found.full == 6 * products + attention
    assert found.causal == 6 * products + attention / 2
    assert utilisation(found.full, 1.0, 8, "cpu") is None
    assert all(p.source for p in PEAKS)


def test_bits_per_byte() -> None:
    assert Score(math.log(2), 10, 5).told(1, None)["bits_per_byte"] == pytest.approx(2.0)
    for size in (0, math.nan):
        assert Score(math.nan, 0, size).told(1, None)["bits_per_byte"] is None
    assert sum(Bytes().sizes()) == 256


@pytest.mark.long
def test_a_score_counts_by_weight() -> None:
    cfg = make({"width": 16, "layers": 1, "heads": 2, "hidden": 16, "length": 8, "batch_size": 2})
    mesh = make_mesh(cfg)
    functions, task = make_steps(cfg, mesh), Language(cfg)
    params = functions.init().params

    def score(weight: float) -> Score:
        one, places = np.ones((4, 8), np.int32), np.tile(np.arange(8, dtype=np.int32), (4, 1))
        weights = np.full((4, 8), weight, np.float32)
        row = {"tokens": 65 * one, "segment_ids": one, "positions": places, "weights": weights}
        corpus = Corpus(Path(), train=Dataset(row), held_out=Dataset(row))
        parts: Any = SimpleNamespace(
            cfg=cfg, mesh=mesh, corpus=corpus, functions=functions, task=task
        )
        return evaluate(parts, params, Screen(quiet=True))

    whole, half, none = (score(weight) for weight in (1.0, 0.5, 0.0))
    assert whole.told(1, None) == {**half.told(1, None), "tokens": 28, "loss_bits": ANY}
    assert half.tokens == 14
    assert none.told(1, None)["loss"] is None
    assert none.told(1, None)["bits_per_byte"] is None


def test_rows_that_fill_up_a_batch_do_not_count() -> None:
    class Squares:  # a task that heeds no mask
        def model(self, rngs: nnx.Rngs) -> nnx.Module:
            return nnx.Linear(1, 1, rngs=rngs)

        def losses(self, model: Any, batch: Any, key: Any) -> Any:
            loss = (model(batch["x"][:, None])[:, 0] - 1) ** 2
            return loss, jnp.ones_like(loss)

        def show(self, row: Any, segment: int) -> str:
            return ""

    cfg, task = make({"batch_size": 4, "length": 8}), Squares()
    mesh = make_mesh(cfg)
    rows = Dataset({"x": np.arange(6, dtype=np.float32)})
    functions, corpus = make_steps(cfg, mesh, task), Corpus(Path(), train=rows, held_out=rows)
    parts: Any = SimpleNamespace(cfg=cfg, mesh=mesh, corpus=corpus, functions=functions, task=task)
    params = functions.init().params
    score = evaluate(parts, params, Screen(quiet=True))
    model = functions.model(params)
    expected = np.mean(
        [float(task.losses(model, {"x": jnp.float32([i])}, None)[0][0]) for i in range(6)]
    )
    assert score.tokens == 6
    assert score.loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.long
@pytest.mark.slow
def test_the_best_checkpoint_outlives_newer_ones(
    uninterrupted: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(uninterrupted(1), tmp_path / "run")
    run = RunDir(tmp_path / "run")
    (run.path / "evaluations.jsonl").write_text("")
    # a learning rate that is spent: the loss can only wander, and some evaluation is the best
    words = ["train", "--run", str(run.path), "--steps", "64", "--set", "evaluate.every=3"]
    data = f"data={uninterrupted(1).parent / 'data'}"
    assert main([*words, data, "keep=1", "keep_every=1000", "save_every=1000"]) == 0
    found = {e["step"]: e["loss"] for e in run.evaluations()}
    assert sorted(found) == [*range(42, 64, 3), 64]
    while_training = {step: loss for step, loss in found.items() if step < 64}
    best = min(while_training, key=while_training.__getitem__)
    kept = [int(p.name) for p in run.checkpoints.iterdir() if p.name.isdigit()]
    assert best in kept
    assert len(kept) <= 4
    written = [line["step"] for line in read_lines(run.metrics)]
    assert written == sorted(written)  # by step, as W&B demands
    capsys.readouterr()
    words = ["sample", "--run", str(run.path), "--tokens", "12", "--prompt", "We"]
    assert main([*words, "--at", "best"]) == 0
    one = capsys.readouterr().out
    assert one.startswith("We")
    assert main([*words, "--at", "best"]) == 0
    assert capsys.readouterr().out == one
    assert main([*words, "--at", "7"]) == 2
    assert "no checkpoint 7" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.slow
def test_a_trace_names_data_wait_transfer_and_step(
    uninterrupted: Callable[[int], Path], tmp_path: Path
) -> None:
    run = tmp_path / "traced"
    data = f"data={uninterrupted(1).parent / 'data'}"
    words = ["train", "--run", str(run), "--steps", "6", "--profile", "3:5"]
    assert main([*words, "--set", *TINY, data, "evaluate.batches=1"]) == 0
    (trace,) = (run / "profile").rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    named = [event.get("name", "") for event in events]
    assert {"data wait", "transfer"} <= set(named)
    steps = [event["args"]["step_num"] for event in events if event.get("name") == "step"]
    assert sorted({int(step) for step in steps}) == [3, 4]


def test_writers_that_are_not_installed_name_their_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in ("tensorboardX", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"\[tensorboard\]"), tensorboard(tmp_path):
        pass
    with pytest.raises(MissingExtraError, match=r"\[wandb\]"), wandb_run("p", tmp_path, {}):
        pass


def test_wandb_goes_on_with_the_directory_s_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    logged: list[Any] = []

    class Run:
        def log(self, values: Any, step: int) -> None:
            logged.append((step, values))

        def finish(self) -> None:
            logged.append("finished")

    module = ModuleType("wandb")
    module.init = lambda **told: logged.append(told) or Run()  # pyright: ignore
    monkeypatch.setitem(sys.modules, "wandb", module)
    for folder in ("a", "b/a"):
        (tmp_path / folder).mkdir(parents=True)
        for _ in range(2):
            with wandb_run("p", tmp_path / folder, {"seed": 1}) as write:
                write(3, {"loss": 1.0})
    begun = logged[::3]
    assert logged[1:3] == [(3, {"loss": 1.0}), "finished"]
    assert {told["resume"] for told in begun} == {"allow"}
    assert {told["name"] for told in begun} == {"a"}
    one, again, other, _ = (told["id"] for told in begun)
    assert one == again != other  # a folder of the same name elsewhere is another run


def launch(number: int, step: int, processes: int = 1, **mesh: int) -> dict[str, Any]:
    return {"launch": number, "step": step, "mesh": {"data": 1, **mesh}, "processes": processes}


def entry(launch: int, step: int) -> Entry:
    told: Any = dict.fromkeys(("loss", "loss_bits", "grad_norm", "digest", "seconds"))
    return Entry(launch=launch, step=step, data_step=step, rows=(0, 0), **told)


def test_a_part_is_reached_by_way_of_the_mesh_before_it() -> None:
    launches = [launch(0, 0), launch(1, 8), launch(2, 10, fsdp=2), launch(3, 20)]
    done = {0: range(9), 1: range(8, 13), 2: range(10, 24), 3: range(20, 30)}
    found = stages(launches, [entry(i, step) for i, steps in done.items() for step in steps])
    assert [stage.launches for stage in found] == [[0, 1], [2], [3]]
    assert [str(leg.stage)[:8] for leg in route(found, 1, 12, [0, 5, 25])] == [
        "launches",
        "launch 2",
    ]
    assert [(leg.start, leg.stop) for leg in route(found, 1, 12, [0, 5, 25])] == [(5, 10), (10, 12)]
    # checkpoint 12 was saved by launch 2: launches 0 and 1 never came there with one
    assert [leg.start for leg in route(found, 0, 12, [0, 5, 12])] == [5]
    assert [leg.start for leg in route(found, 2, 26, [0, 25])] == [25]
    # all three meshes, one after the other
    assert [leg.start for leg in route(found, 2, 22, [0])] == [0, 10, 20]
    with pytest.raises(CheckpointError, match="at or before step 4"):
        route(found, 0, 4, [25])


def test_lines_of_launches_that_are_lost() -> None:
    [stage] = stages([launch(0, 0)], [entry(0, 0), entry(1, 1)])  # all known ones are alike
    assert sorted(stage.entries) == [0, 1]
    for known in ([], [launch(0, 0), launch(1, 1, fsdp=2)]):
        with pytest.raises(DamageError, match=r"no line of launch 2, .* step 1 was"):
            stages(known, [entry(2, 1)])


def test_what_has_changed_since_the_last_launch_is_told_or_refused() -> None:
    now = manifest(jax.make_mesh((1,), ("data",)))
    assert differences(now, now) == []
    assert check([{"launch": 0, "manifest": now}], now, strict=True) == ""
    older = {**now, "jax": "0.1", "mesh": {"fsdp": 8}}
    told = check([{"launch": 0, "manifest": older}], now, strict=False)
    assert "jax 0.1 -> " in told
    assert "{'fsdp': 8} -> {}" in told
    with pytest.raises(ConfigError, match=r"since launch 0 changed: jax 0\.1"):
        check([{"launch": 0, "manifest": older}], now, strict=True)


def test_the_code_of_a_task_belongs_to_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("tasks")
    monkeypatch.setitem(sys.modules, "tasks", module)

    def found(body: str) -> dict[str, Any]:
        exec(f"class Task:\n    def losses(self): return {body}", module.__dict__)
        return manifest(jax.make_mesh((1,), ("data",)), "tasks:Task")

    assert found("1") == found("1")
    [told] = differences(found("1"), found("2"))
    assert told.startswith("task ")


@pytest.mark.long
@pytest.mark.slow
def test_doctor_s_status(
    uninterrupted: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(uninterrupted(1), tmp_path / "run")
    launches = tmp_path / "run/launches.jsonl"
    (line,) = read_lines(launches)
    main(["doctor", "--run", str(tmp_path / "run"), "--json"])
    line["manifest"] = json.loads(capsys.readouterr().out)["now"]
    launches.write_text(json.dumps(line) + "\n")
    assert main(["doctor", "--run", str(tmp_path / "run")]) == 0
    line["manifest"]["jaxlib"] = "0.0.1"
    launches.write_text(json.dumps(line) + "\n")
    assert main(["doctor", "--run", str(tmp_path / "run")]) == 1
    assert "jaxlib 0.0.1 -> " in capsys.readouterr().out


def test_shards_that_do_not_fit_are_refused() -> None:
    assert make({"mesh.shards": 8}).mesh.shards == 8
    for words in ({"mesh.shards": 3}, {"mesh.shards": 4, "fsdp": 2}):
        with pytest.raises(ConfigError, match=r"mesh\.shards"):
            make(words)
