"""The training loop: from the newest checkpoint to the step asked for."""

from __future__ import annotations

import dataclasses
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from harness.assembly import Assembly, assemble
from harness.checkpoint import Checkpoints, complete_steps, versions
from harness.config import PLACES, Config, flat
from harness.distributed import check_alike
from harness.doctor import check, manifest, pin
from harness.errors import CheckpointError, ConfigError, NotFiniteError
from harness.evaluate import evaluate
from harness.files import locked
from harness.goodput import Clock, clock_of
from harness.ledger import read
from harness.metrics import Screen
from harness.rundir import RunDir
from harness.scribe import Alarm, Scribe
from harness.step import TrainState, evaluated
from harness.stop import Stop, greatest
from harness.update import update
from harness.watch import Watch, watching
from pipeline.debug.journal import Journal


def train(
    run: RunDir,
    cfg: Config,
    *,
    until: int,
    screen: Screen,
    begin_at: int | None = None,
    profile: range | None = None,
    deterministic: bool = False,
    alarm: Alarm | None = None,
) -> signal.Signals | None:
    """Train to step `until`, evaluate, and store everything in the run's directory.

    It begins at the newest complete checkpoint. If it is killed at any moment and called again, it
    arrives at the same bits as a run that was never killed.

    Args:
        run, cfg, until, screen: the run, its settings, the step to reach, where progress is shown.
        begin_at: go on from the checkpoint of this step; later ones are set aside.
        profile: steps of which an XProf trace is written.
        deterministic: keep compiled programs for later launches, and refuse changes of what bits
            depend on, see `doctor.manifest`.
        alarm: gets each ledger line once it is written; may raise.

    Returns:
        The signal that stopped it early, after saving; None if it reached `until`.

    Raises:
        BusyError: another process trains this run.
        CheckpointError: the checkpoint of `begin_at`, or of the ledger's steps, is lost or damaged.
        ConfigError: devices or `profile` do not fit the settings, or processes have others.
        NotFiniteError: a loss or gradient norm is not finite, and cfg.on_nonfinite is "stop".
        MismatchError: the corpus is not the one that the run was begun with.
    """
    _check_profile(profile, run, begin_at, until)
    options = {"--steps": until, "--from": begin_at, "--deterministic": deterministic}
    check_alike({k: v for k, v in flat(cfg).items() if k not in (*PLACES, "data.source")} | options)
    if deterministic:
        pin(run.path / "compiled")
    with (
        _alone(run),
        clock_of(run.goodput) as clock,
        assemble(run, cfg, screen) as parts,
        _checkpoints(run, cfg) as checkpoints,
    ):
        facts = manifest(parts.mesh, cfg.task)
        screen.note(check(run.all_launches(), facts, strict=deterministic))
        if begin_at is not None:
            _go_back(run, checkpoints, begin_at, screen)
        step, state = _stand(run, parts, checkpoints, clock, screen)
        with (
            Stop() as stop,
            _scribe(run, parts, facts, clock, alarm) as scribe,
            watching(run, parts, clock, profile) as watch,
        ):
            loop = _Loop(run, cfg, parts, checkpoints, scribe, watch, screen)
            step = loop.steps(step, state, until, stop)
        return stop.signal if step < until else None


@dataclasses.dataclass
class _Loop:
    """The training loop, with all that it uses."""

    run: RunDir
    cfg: Config
    parts: Assembly
    checkpoints: Checkpoints
    scribe: Scribe
    watch: Watch
    screen: Screen

    def steps(self, step: int, state: TrainState, until: int, stop: Stop) -> int:
        """Train from a step, with the state before it, until told to stop; the step reached."""
        with self.screen.meter("train", total=until, done=step) as meter:
            while step < until and not stop.agreed():
                with self.watch.data_wait(step):
                    batch = next(self.parts.loader)
                with self.watch.step(step):
                    state, told = update(self.parts, state, batch)
                    self.scribe.dispatched(step, told)
                self.watch.done(step, batch, told)
                step += 1
                meter.advance(note=f"{self.scribe.news}  {self.watch.note}")
                if step < until:
                    self.between(step, state)
        self.watch.flush()
        self.save(step, state)
        with self.watch.clock("save"):
            self.checkpoints.wait()
        if step >= until:
            self.judge(step, state, last=True)
        return step

    def between(self, step: int, state: TrainState) -> None:
        """Evaluate and save if it is due."""
        best = False
        if _due(step, self.cfg.evaluate.every):
            self.watch.flush()  # W&B takes nothing of a step before one that it has
            with self.scribe.saving():
                best = self.judge(step, state)
        if best:
            self.checkpoints.best = step
        if best or _due(step, self.cfg.save_every):
            self.save(step, state)

    def save(self, step: int, state: TrainState) -> None:
        with self.scribe.saving():
            _save(self.checkpoints, step, state, self.parts, self.watch.clock)

    def judge(self, step: int, state: TrainState, *, last: bool = False) -> bool:
        """Evaluate the state after `step` steps, and store the score; whether it is the best."""
        with self.watch.clock("evaluation"):
            score = evaluate(self.parts, evaluated(state), self.screen)
        told, best = score.told(step, self.parts.corpus.unigram_entropy), False
        if jax.process_index() == 0:
            alike = [e for e in self.run.evaluations() if e["tokens"] == told["tokens"]]
            others = [e["loss"] for e in alike if e["loss"] is not None and e["step"] < step]
            self.run.keep_evaluation(told, last=last)
            best = told["loss"] is not None and all(told["loss"] <= loss for loss in others)
        shown = {f"evaluation_{k}": told[k] for k in ("loss", "bits_per_byte")}
        self.watch.write(step, shown)
        return bool(np.asarray(greatest(best)))  # the first process decides, from the files


def _check_profile(profile: range | None, run: RunDir, begin_at: int | None, until: int) -> None:
    begin = max(complete_steps(run.checkpoints), default=0) if begin_at is None else begin_at
    steps = range(begin, until)
    if profile is not None and (profile.start >= steps.stop or profile.stop <= steps.start):
        first, last = profile.start, profile.stop
        raise ConfigError(
            f"--profile {first}:{last}: this launch trains steps {steps.start}:{steps.stop}, none "
            "of these. Choose among them, or give --steps more."
        )


@contextmanager
def _alone(run: RunDir) -> Iterator[None]:
    # the first process holds the lock for all; a run refused before it begins leaves nothing
    if jax.process_index():
        _check_shared(run)
        yield
        return
    made = not run.path.exists()
    with locked(run.lock, wait=False):
        try:
            _check_shared(run)
            yield
        finally:
            if made and not (run.path / "config.json").exists():
                shutil.rmtree(run.path)


def _check_shared(run: RunDir) -> None:
    """Check that all processes see the folder of the first, or saves would wait without end.

    Raises:
        ConfigError: one of them sees another.
    """
    if jax.process_count() == 1:
        return
    number = 0
    if jax.process_index() == 0:
        number = 1 + secrets.randbelow(2**31 - 1)
        run.lock.write_text(str(number))
    number = int(np.asarray(greatest(number)))  # comes when the first process has written it
    lost = not run.lock.exists() or run.lock.read_text() != str(number)
    odd = int(np.asarray(greatest((jax.process_index() + 1) * lost)))
    if odd:
        raise ConfigError(
            f"process {odd - 1} does not see the run's folder of process 0; here it is {run.path}. "
            "Give all of them the same --run, on a file system that all machines share."
        )


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


@contextmanager
def _checkpoints(run: RunDir, cfg: Config) -> Iterator[Checkpoints]:
    kept = {"keep": cfg.keep, "keep_every": cfg.keep_every}
    with Checkpoints(run.checkpoints, **kept, clean=True) as checkpoints:
        if cfg.evaluate.every:
            known = checkpoints.steps
            checkpoints.best = min(
                (e for e in run.evaluations() if e["loss"] is not None and e["step"] in known),
                key=lambda e: e["loss"],
                default={"step": None},
            )["step"]
        yield checkpoints


def _stand(
    run: RunDir, parts: Assembly, checkpoints: Checkpoints, clock: Clock, screen: Screen
) -> tuple[int, TrainState]:
    """The step at which the run stands, and its state; the loader is set to it."""
    if checkpoints.steps:
        step = checkpoints.steps[-1]
        screen.say(f"resume {run.path} at step {step:,}")
        with clock("restore"):
            return step, checkpoints.restore(step, parts.functions, parts.loader)
    if lines := read(run.ledger):
        raise CheckpointError(
            f"the ledger of {run.path} goes up to step {lines[-1].step:,}, but no checkpoint is in "
            f"{run.checkpoints}: training would start over. Restore that folder, or give --run "
            "another one."
        )
    state = parts.functions.init()
    if jax.process_index() == 0:
        run.begin(parts.cfg)  # not earlier: what cannot begin leaves no settings behind
    n = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    screen.say(f"begin {run.path}: {n:,} parameters")
    _save(checkpoints, 0, state, parts, clock)
    return 0, state


def _save(
    checkpoints: Checkpoints, step: int, state: TrainState, parts: Assembly, clock: Clock
) -> None:
    with clock("save"):
        if not bool(parts.functions.finite(state)):
            last = max((s for s in checkpoints.steps if s < step), default=None)
            raise NotFiniteError(
                f"parameters or moments are not finite after step {step - 1:,}, though its loss "
                f"was: nothing was saved. The last finite checkpoint is {last}. Lower the learning "
                "rate."
            )
        settings = dataclasses.asdict(parts.cfg)
        checkpoints.save(step, state, parts.functions, parts.loader, settings)


def _go_back(run: RunDir, checkpoints: Checkpoints, step: int, screen: Screen) -> None:
    aside = checkpoints.set_aside(after=checkpoints.find(step))
    if jax.process_index() == 0:
        run.drop_evaluation()
    if aside:
        screen.say(f"set aside: checkpoints {', '.join(map(str, aside))}")


@contextmanager
def _scribe(
    run: RunDir, parts: Assembly, facts: dict[str, Any], clock: Clock, alarm: Alarm | None
) -> Iterator[Scribe]:
    told = {
        "mesh": dict(parts.mesh.shape),
        "processes": jax.process_count(),
        **versions(),
        "manifest": facts,
    }
    data = "harness.opened:dataset"
    with Journal(run.path, parts.loader, data=data, facts=told) as journal:
        clock.launch = journal.launch
        yield Scribe(journal, stops=parts.cfg.on_nonfinite == "stop", alarm=alarm)
