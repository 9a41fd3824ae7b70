"""The training loop: from wherever the run stands to where it shall stand."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext

import jax

from harness.assembly import Assembly, assemble
from harness.checkpoint import Checkpoints, versions
from harness.config import Config
from harness.errors import CheckpointError, NotFiniteError
from harness.evaluate import evaluate
from harness.files import locked
from harness.ledger import finite, float_bits
from harness.metrics import Screen
from harness.rundir import RunDir
from harness.scribe import Scribe
from harness.step import TrainState
from harness.stop import Stop
from harness.update import update
from pipeline.debug.journal import Journal


def train(
    run: RunDir, cfg: Config, *, until: int, screen: Screen, begin_at: int | None = None
) -> signal.Signals | None:
    """Train to step `until`, evaluate, and keep all of it in the run's directory.

    Begins where the newest whole checkpoint stands. Killed at any moment and called again, it
    goes on to the bits of a run that was never killed.

    Args:
        run: its directory.
        cfg: its settings.
        until: the step to reach.
        screen: shows how far it is.
        begin_at: go on from the checkpoint of this step; later ones are set aside.

    Returns:
        The signal that stopped it early, its state saved; None where it reached `until`.

    Raises:
        BusyError: another process trains this run.
        CheckpointError: no checkpoint of step `begin_at`, or the one to go on from is damaged.
        ConfigError: the devices do not fit the settings.
        NotFiniteError: a loss or gradient norm is not finite, and cfg.on_nonfinite is "stop".
        MismatchError: the corpus is not the one that the run was begun with.
    """
    first = jax.process_index() == 0
    with (
        locked(run.lock, wait=False) if first else nullcontext(),
        assemble(run, cfg, screen) as parts,
        _checkpoints(run, cfg) as checkpoints,
    ):
        if first:
            run.begin(cfg)
        loader, functions = parts.loader, parts.functions
        if begin_at is not None:
            _go_back(checkpoints, begin_at, screen)
        step, state = _stand(run, parts, checkpoints, screen)
        with (
            Stop() as stop,
            _scribe(run, parts) as scribe,
            screen.meter("train", total=until, done=step) as meter,
        ):
            while step < until and not stop.agreed():
                batch = next(loader)
                state, told = update(functions, state, batch)
                scribe.dispatched(step, told)
                step += 1
                meter.advance(note=scribe.news)
                if step % cfg.save_every == 0 and step < until:
                    with scribe.saving():
                        _save(checkpoints, step, state, parts)
            with scribe.saving():
                _save(checkpoints, step, state, parts)
            checkpoints.wait()
        if step >= until:
            _conclude(run, parts, step, state, screen)
        return stop.signal if step < until else None


@contextmanager
def _checkpoints(run: RunDir, cfg: Config) -> Iterator[Checkpoints]:
    with closing(
        Checkpoints(run.checkpoints, keep=cfg.keep, keep_every=cfg.keep_every, clean=True)
    ) as checkpoints:
        yield checkpoints


def _stand(
    run: RunDir, parts: Assembly, checkpoints: Checkpoints, screen: Screen
) -> tuple[int, TrainState]:
    """Where the run stands, and its state there; the loader is set to it."""
    if checkpoints.steps:
        step = checkpoints.steps[-1]
        screen.say(f"resume {run.path} at step {step:,}")
        return step, checkpoints.restore(step, parts.functions, parts.loader)
    state = parts.functions.init()
    n = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    screen.say(f"begin {run.path}: {n:,} parameters, {parts.corpus.train_documents:,} documents")
    _save(checkpoints, 0, state, parts)
    return 0, state


def _save(checkpoints: Checkpoints, step: int, state: TrainState, parts: Assembly) -> None:
    if not bool(parts.functions.finite(state)):
        last = max((s for s in checkpoints.steps if s < step), default=None)
        raise NotFiniteError(
            f"parameters or moments are not finite after step {step - 1:,}, though its loss was: "
            f"nothing was saved. The last finite checkpoint is {last}. Lower the learning rate."
        )
    checkpoints.save(step, state, parts.functions, parts.loader, dataclasses.asdict(parts.cfg))


def _go_back(checkpoints: Checkpoints, step: int, screen: Screen) -> None:
    if step not in checkpoints.steps:
        raise CheckpointError(f"there is no checkpoint {step}; there are {checkpoints.steps}.")
    aside = checkpoints.set_aside(after=step)
    if aside:
        screen.say(f"set aside: checkpoints {', '.join(map(str, aside))}")


@contextmanager
def _scribe(run: RunDir, parts: Assembly) -> Iterator[Scribe]:
    facts = {"mesh": dict(parts.mesh.shape), "processes": jax.process_count(), **versions()}
    data = "harness.opened:dataset"
    with Journal(run.path, parts.loader, data=data, facts=facts) as journal:
        yield Scribe(journal, stops=parts.cfg.on_nonfinite == "stop")


def _conclude(run: RunDir, parts: Assembly, step: int, state: TrainState, screen: Screen) -> None:
    """Evaluate what training reached, and keep the result."""
    loss, tokens = evaluate(parts, state.params, screen)
    if jax.process_index() == 0:
        run.keep_evaluation(
            {
                "step": step,
                "loss": finite(loss),
                "loss_bits": float_bits(loss),
                "tokens": tokens,
                "unigram_entropy": parts.corpus.unigram_entropy,
            }
        )
