"""Whether `blame` names the right culprit: thirty runs with planted faults, seeded.

Ten runs have a bad document (a rare byte throughout, a rare n-gram repeated, bytes in disorder),
ten a flipped bit in a parameter or a gradient at one step, ten a fault in the optimizer's settings.
All are of the default size. Bad documents must spike with z >= 5. A flip that changes no bit of the
ledger, and settings that give no spike, are drawn again and counted. What runs have in common, the
first hundred steps of a healthy run, is trained once.

    python benchmarks/blame.py [--cases N] [--only document flip optimizer] [--set KEY=VALUE ...]

Exit status 0 if 28 of 30 classes are right, and 95 % of bad documents are ranked first.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from harness import assembly as assembly_module
from harness import step as step_module
from harness.blame import blame
from harness.config import Config, flat, make, parse
from harness.data import Corpus, prepare, training_data
from harness.files import write_json
from harness.ledger import read
from harness.metrics import Screen
from harness.poison import KINDS, document_at, plant
from harness.recheck import Verdict
from harness.rundir import RunDir
from harness.seal import seal
from harness.spikes import excess, latest
from harness.step import StepFunctions, TrainState, make_steps
from harness.train import train
from pipeline import Loader

COMMON, AFTER, LEAST_Z = 100, 6, 5.0
QUIET = Screen(quiet=True)


class Bench:
    """One healthy run that all cases begin as, and the folder in which they lie."""

    def __init__(self, folder: Path, cfg: Config) -> None:
        self.folder, self.cfg = folder, cfg
        self.corpus: Corpus = prepare(folder / "data", QUIET)
        self.healthy = RunDir(folder / "healthy")
        train(self.healthy, cfg, until=COMMON, screen=QUIET)

    def copy(self, name: str, data: Path | None = None) -> tuple[RunDir, Config]:
        """The healthy run as the beginning of another, maybe on a copy of the corpus."""
        run = RunDir(self.folder / name)
        shutil.copytree(self.healthy.path, run.path)
        if data is None:
            return run, self.cfg
        cfg = make({**flat(self.cfg), "data.source": str(data)})
        write_json(run.path / "config.json", dataclasses.asdict(cfg))
        # the copy's batches are the same up to here, though its files are not
        with Loader(training_data(prepare(data, QUIET), cfg), cfg.batch_size) as loader:
            dataset = loader.state_dict()["dataset"]
        notes = [run.path / "launches.jsonl", *run.path.glob("checkpoints/*/data/loader.json")]
        for file in notes:
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            file.write_text("".join(json.dumps({**x, "dataset": dataset}) + "\n" for x in lines))
        for checkpoint in run.checkpoints.glob("[0-9]*"):
            seal(checkpoint)
        return run, cfg


Case = tuple[str, str, Verdict, bool]  # class, what was planted, the answer, document ranked first


def documents(bench: Bench) -> Iterator[Case | None]:
    """Runs with a bad document; None for each that does not spike enough."""
    for seed in itertools.count():
        rng = np.random.default_rng([1, seed])
        step, kind = COMMON + int(rng.integers(2, 20)), KINDS[seed % len(KINDS)]
        bad = document_at(bench.corpus, bench.cfg, step)
        data = bench.folder / f"data-{seed}"
        plant(bench.corpus, data, {bad.record: kind}, seed)
        run, cfg = bench.copy(f"document-{seed}", data)
        train(run, cfg, until=step + AFTER, screen=QUIET)
        lines = latest(read(run.ledger))
        spike = max(range(step - 1, step + 3), key=lambda s: excess(lines, s)[3])
        z = excess(lines, spike)[3]
        if z < LEAST_Z:
            yield None
            continue
        found = blame(run, cfg, spike, QUIET)
        first = bool(found.documents) and found.documents[0]["record"] == bad.record
        yield "data", f"{kind} {bad.name} at step {step}, z {z:.0f}", found, first
        shutil.rmtree(run.path)


def flips(bench: Bench) -> Iterator[Case | None]:
    """Runs in which one bit was another at one step; None for each whose ledger shows nothing."""
    run, cfg = bench.copy("honest")
    last = COMMON + 20
    train(run, cfg, until=last, screen=QUIET)
    honest = [entry.loss_bits for entry in read(run.ledger)]
    for seed in itertools.count():
        rng = np.random.default_rng([2, seed])
        step, gradient = COMMON + int(rng.integers(1, 18)), bool(seed % 2)
        run, cfg = bench.copy(f"flip-{seed}")
        with mock.patch.object(assembly_module, "make_steps", _faulty(step, gradient, rng)):
            train(run, cfg, until=last, screen=QUIET)
        changed = [e.loss_bits for e in read(run.ledger)] != honest
        if changed:
            found = blame(run, cfg, last - 1, QUIET)
            yield (
                "hardware",
                f"{'gradient' if gradient else 'parameter'} at step {step}",
                found,
                True,
            )
        else:
            yield None
        shutil.rmtree(run.path)


def _faulty(step: int, gradient: bool, rng: np.random.Generator) -> Callable[..., StepFunctions]:
    """`make_steps` whose functions flip a bit at the step of that number."""
    place, bit = rng.random(), int(rng.integers(32))

    def flip(tree: Any) -> Any:
        leaves, shape = jax.tree.flatten(tree)
        at = int(place * len(leaves))
        leaf = leaves[at]
        words = jax.lax.bitcast_convert_type(leaf.ravel(), np.uint32)
        spot = int(place * 1e6) % leaf.size
        words = words.at[spot].set(words[spot] ^ np.uint32(1 << bit))
        leaves[at] = jax.lax.bitcast_convert_type(words, np.float32).reshape(leaf.shape)
        return jax.tree.unflatten(shape, leaves)

    def made(cfg: Config, mesh: Mesh, *more: Any) -> StepFunctions:
        functions = make_steps(cfg, mesh, *more)
        honest = step_module.make_optimizer

        def bad_optimizer(cfg: Config) -> Any:
            inner = honest(cfg)
            return optax.GradientTransformation(
                inner.init,
                lambda updates, state, params=None: inner.update(flip(updates), state, params),
            )

        with mock.patch.object(step_module, "make_optimizer", bad_optimizer):
            wrong = make_steps(cfg, mesh, *more)

        def bad_train(state: TrainState, batch: Any) -> Any:
            if optax.tree.get(state.opt_state, "count", filtering=_of_adam) != step:
                return functions.train(state, batch)
            if gradient:
                return wrong.train(state, batch)
            after, told = functions.train(state, batch)
            return TrainState(jax.jit(flip)(after.params), after.opt_state), told

        return functions._replace(train=bad_train)

    return made


def _of_adam(path: Any, _: Any) -> bool:
    return "mu" not in jax.tree_util.keystr(path) and "Adam" in str(path)


FAULTS: tuple[dict[str, Any], ...] = (
    {"learning_rate": 0.1},
    {"learning_rate": 0.3, "warmup": 45},
    {"learning_rate": 0.06, "warmup": 0},
    {"learning_rate": 1.0, "warmup": 60},
    {"learning_rate": 0.15, "clip": 1e6},
    {"learning_rate": 0.05, "weight_decay": 30.0},
    {"learning_rate": 0.5, "warmup": 90},
    {"learning_rate": 0.2, "clip": 0.1},
    {"learning_rate": 0.08, "warmup": 10},
    {"learning_rate": 2.0, "warmup": 80},
    {"learning_rate": 0.4, "warmup": 25, "seed": 1},
    {"learning_rate": 0.12, "warmup": 50, "seed": 2},
    {"learning_rate": 0.7, "warmup": 70, "seed": 3},
    {"learning_rate": 1.5, "warmup": 65, "seed": 4},
    {"learning_rate": 0.06, "weight_decay": 40.0, "seed": 5},
    {"learning_rate": 1.0, "warmup": 55, "seed": 6},
)


def optimizers(bench: Bench) -> Iterator[Case | None]:
    """Runs whose settings make the loss spike; None for those whose do not."""
    for seed, fault in enumerate(FAULTS):
        cfg = make({**flat(bench.cfg), **fault})
        run = RunDir(bench.folder / f"optimizer-{seed}")
        train(run, cfg, until=COMMON, screen=QUIET)
        lines = latest(read(run.ledger))
        spike = max(range(12, COMMON), key=lambda s: np.nan_to_num(excess(lines, s)[3], nan=-1))
        z = excess(lines, spike)[3]
        if z < LEAST_Z:
            yield None
            continue
        yield (
            "optimizer",
            f"{fault}, spike at {spike}, z {z:.0f}",
            blame(run, cfg, spike, QUIET),
            True,
        )
        shutil.rmtree(run.path)


PARTS = {"document": documents, "flip": flips, "optimizer": optimizers}


def main() -> int:
    parser = argparse.ArgumentParser(description="Thirty planted faults, and what blame says.")
    parser.add_argument("--cases", type=int, default=10, help="of each kind")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    right = total = first = ranked = 0
    with tempfile.TemporaryDirectory() as name:
        jax.config.update("jax_compilation_cache_dir", f"{name}/compiled")
        cfg = make({"save_every": 20, "keep_every": 20, **parse(args.set)})
        bench = Bench(Path(name), cfg)
        for part in args.only:
            redrawn, done = 0, 0
            cases, started = PARTS[part](bench), time.perf_counter()
            for case in cases:
                if case is None:
                    redrawn += 1
                    print(f"      {part}: drawn again, it shows nothing", flush=True)
                    started = time.perf_counter()
                    continue
                kind, planted, found, is_first = case
                seconds = time.perf_counter() - started
                ok = found.kind == kind
                right, total, done = right + ok, total + 1, done + 1
                if part == "document":
                    first, ranked = first + is_first, ranked + 1
                mark = "ok   " if ok and is_first else "WRONG"
                print(f"{mark} {part}: {planted}\n      {found.kind}: {found.summary}")
                print(f"      {found.evaluations} evaluations, {seconds:.0f} s with its training")
                print(*(f"      {line}" for line in found.evidence), sep="\n")
                print(f"      so far: class right in {right} of {total}", flush=True)
                started = time.perf_counter()
                if done == args.cases:
                    break
            print(f"{part}: {done} cases, {redrawn} drawn again", flush=True)
    print(f"class right in {right} of {total}; document first in {first} of {ranked}")
    return 0 if right >= 28 / 30 * total and first >= 0.95 * ranked else 1


if __name__ == "__main__":
    sys.exit(main())
