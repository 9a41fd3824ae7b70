"""Reaching a past step of a run: from a checkpoint before it, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from harness.assembly import Assembly, assemble
from harness.checkpoint import Checkpoints
from harness.config import Config
from harness.errors import CheckpointError, ConfigError
from harness.ledger import Entry, read
from harness.metrics import Screen
from harness.rundir import RunDir
from harness.step import TrainState
from harness.task import Batch
from harness.update import update


class Stand(NamedTuple):
    """A run just before a step: its state, and the batch that the step takes."""

    step: int
    data_step: int
    state: TrainState
    batch: Batch


@dataclass(frozen=True)
class Past:
    """A run whose past is inspected. Nothing of it is written."""

    run: RunDir
    parts: Assembly
    checkpoints: Checkpoints
    screen: Screen

    def restore(self, step: int, *, margin: int = 0) -> tuple[int, TrainState]:
        """The newest checkpoint at least `margin` steps before a step, else the oldest one.

        Returns:
            The checkpoint's step, and the state; the loader is set to it.

        Raises:
            CheckpointError: there is none at or before the step, or it is damaged.
        """
        known = [s for s in self.checkpoints.steps if s <= step]
        if not known:
            raise CheckpointError(
                f"no checkpoint of {self.run.path} stands at or before step {step:,}; there are "
                f"{self.checkpoints.steps}. Choose a later step."
            )
        found = max((s for s in known if s <= step - margin), default=known[0])
        self.screen.say(f"from checkpoint {found:,}")
        return found, self.checkpoints.restore(found, self.parts.functions, self.parts.loader)

    def stand(self, step: int) -> Stand:
        """The stand just before a step; all steps before it are done again.

        Raises:
            CheckpointError: as for `restore`.
        """
        start, state = self.restore(step)
        loader = self.parts.loader
        with self.screen.meter("replay", total=step - start) as meter:
            for _ in range(start, step):
                state, _ = update(self.parts, state, next(loader))
                meter.advance()
        return Stand(step, loader.step, state, next(loader))


def copied(state: TrainState) -> TrainState:
    """A copy of a state, since steps donate the state that they get."""
    return jax.tree.map(jnp.copy, state)


@contextmanager
def opened(run: RunDir, cfg: Config, screen: Screen) -> Iterator[Past]:
    """A run's past, on this process's devices.

    Raises:
        ConfigError: there are several processes, or the devices do not fit the settings.
    """
    if jax.process_count() > 1:
        raise ConfigError("looking back is done by one process: start a single one.")
    with assemble(run, cfg, screen) as parts, Checkpoints(run.checkpoints) as checkpoints:
        yield Past(run, parts, checkpoints, screen)


def entries_by_step(run: RunDir) -> dict[int, list[Entry]]:
    """The ledger's lines of each step, in the order written."""
    found: dict[int, list[Entry]] = {}
    for entry in read(run.ledger):
        found.setdefault(entry.step, []).append(entry)
    return found
