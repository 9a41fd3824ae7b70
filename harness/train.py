"""The training loop: from wherever the run stands to where it shall stand."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext

import jax

from harness.assembly import Assembly, assemble
from harness.checkpoint import Checkpoints, versions
from harness.config import Config
from harness.evaluate import evaluate
from harness.files import locked
from harness.ledger import Ledger, float_bits
from harness.metrics import Screen
from harness.rundir import RunDir
from harness.scribe import Scribe
from harness.step import TrainState
from harness.stop import Stop


def train(run: RunDir, cfg: Config, *, until: int, screen: Screen) -> signal.Signals | None:
    """Train to step `until`, evaluate, and keep all of it in the run's directory.

    Begins where the newest whole checkpoint stands. Killed at any moment and called again, it
    goes on to the bits of a run that was never killed.

    Returns:
        The signal that stopped it early, its state saved; None where it reached `until`.

    Raises:
        BusyError: another process trains this run.
        ConfigError: the devices do not fit the settings.
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
        step, state = _stand(run, parts, checkpoints, screen)
        with (
            Stop() as stop,
            _scribe(run, parts, step, first) as scribe,
            screen.meter("train", total=until, done=step) as meter,
        ):
            while step < until and not stop.agreed():
                batch = next(loader)
                scribe.has_data()
                state, told = functions.train(state, batch)
                scribe.dispatched(step, batch, told)
                step += 1
                meter.advance(note=scribe.news)
                if step % cfg.save_every == 0 and step < until:
                    scribe.flush()
                    _save(checkpoints, step, state, parts)
                    scribe.saved()
            scribe.flush()
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
        return step, checkpoints.restore(step, parts.functions.abstract, parts.loader)
    state = parts.functions.init()
    n = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    screen.say(f"begin {run.path}: {n:,} parameters, {parts.corpus.train_documents:,} documents")
    _save(checkpoints, 0, state, parts)
    return 0, state


def _save(checkpoints: Checkpoints, step: int, state: TrainState, parts: Assembly) -> None:
    checkpoints.save(step, state, parts.loader, {"config": dataclasses.asdict(parts.cfg)})


@contextmanager
def _scribe(run: RunDir, parts: Assembly, step: int, first: bool) -> Iterator[Scribe]:
    if not first:
        yield Scribe(None, 0, parts.loader)
        return
    launch = run.launch(
        {
            "step": step,
            "unix_time": round(time.time(), 3),
            "mesh": dict(parts.mesh.shape),
            "processes": jax.process_count(),
            **versions(),
        }
    )
    with closing(Ledger(run.ledger)) as ledger:
        yield Scribe(ledger, launch, parts.loader)


def _conclude(run: RunDir, parts: Assembly, step: int, state: TrainState, screen: Screen) -> None:
    """Evaluate what training reached, and keep the result."""
    loss, tokens = evaluate(parts, state.params, screen)
    if jax.process_index() == 0:
        run.keep_evaluation(
            {
                "step": step,
                "loss": loss,
                "loss_bits": float_bits(loss),
                "tokens": tokens,
                "unigram_entropy": parts.corpus.unigram_entropy,
            }
        )
