"""Whether recomputed steps equal what the ledger says, and what their rows held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from harness.assembly import Assembly, assemble_on
from harness.checkpoint import Checkpoints
from harness.config import Config
from harness.ledger import Entry, finite, float_bits, read
from harness.metrics import Meter, Screen
from harness.plan import Leg, Stage, check_known, route, stages
from harness.rundir import RunDir
from harness.sharding import host_arrays
from harness.show import show_rows
from harness.step import TrainState
from harness.update import update
from pipeline.debug.digest import digest
from pipeline.debug.journal import Run

PROVED, DIFFERS, NOT_HERE = 0, 1, 2


def replay(run: RunDir, screen: Screen, *, cfg: Config, steps: range, show: bool) -> int:
    """Recompute steps from the nearest checkpoint before them and compare each with the ledger.

    A step that the ledger holds twice, after a crash, must equal both lines. Where launches ran on
    different meshes, each part is proved on its own. Nothing is written.

    Returns:
        0 if batch digests and loss bits of all steps are equal; 1 where one differs, the first of
        them named; 2 where a part needs other devices than there are, and nothing else differs.

    Raises:
        ConfigError: the ledger has no line for one of the steps.
        CheckpointError: no checkpoint stands before them, or the nearest is damaged.
    """
    found = _stages(run, steps)
    asked = [i for i, stage in enumerate(found) if any(step in stage.entries for step in steps)]
    found_so_far = PROVED
    with Checkpoints(run.checkpoints) as checkpoints:
        for i in asked:
            mine = [step for step in steps if step in found[i].entries]
            window = range(mine[0], mine[-1] + 1)
            part = _Part(run, cfg, found[i], window, checkpoints, screen, show)
            outcome = part.prove(route(found, i, window.start, checkpoints.steps))
            if outcome == DIFFERS:
                return DIFFERS
            if outcome == PROVED:
                where = f": {found[i]}" if len(found) > 1 else ""
                first, last = window.start, window.stop - 1
                screen.say(f"{len(window):,} steps proved equal, {first:,} to {last:,}{where}")
            found_so_far = max(found_so_far, outcome)
    return found_so_far


def _stages(run: RunDir, steps: range) -> list[Stage]:
    known = read(run.ledger)
    check_known(steps, {entry.step for entry in known})
    return stages(run.all_launches(), known)


@dataclass
class _Part:
    """Steps of one stage, being proved."""

    run: RunDir
    cfg: Config
    stage: Stage
    window: range
    checkpoints: Checkpoints
    screen: Screen
    show: bool

    def prove(self, legs: Sequence[Leg]) -> int:
        """Go along the legs to the window, then through it."""
        legs = [*legs[:-1], legs[-1]._replace(stop=self.window.stop)]
        lacking = [leg.stage for leg in legs if leg.stage.devices > jax.device_count()]
        if lacking:
            self.screen.say(
                f"steps {self.window.start:,} to {self.window.stop - 1:,} are not proved here: "
                f"{lacking[0]} needs {lacking[0].devices} devices, there are {jax.device_count()}"
            )
            return NOT_HERE
        self.screen.say(f"from checkpoint {legs[0].start:,}")
        carried: tuple[Any, Any] | None = None
        with self.screen.meter("replay", total=self.window.stop - legs[0].start) as meter:
            for leg in legs:
                with assemble_on(self.run, self.cfg, leg.stage.mesh, self.screen) as parts:
                    if carried is None:
                        state = self.checkpoints.restore(leg.start, parts.functions, parts.loader)
                    else:
                        state = _moved(carried[0], parts.functions.abstract)
                        parts.loader.load_state_dict(carried[1])
                    outcome, state = self._go(leg, parts, state, meter)
                    carried = state, parts.loader.state_dict()
                if outcome != PROVED:
                    return outcome
        return PROVED

    def _go(
        self, leg: Leg, parts: Assembly, state: TrainState, meter: Meter
    ) -> tuple[int, TrainState]:
        journal = Run(self.run.path)
        for step in range(leg.start, leg.stop):
            data_step = parts.loader.step
            batch = next(parts.loader)
            state, told = update(parts, state, batch)
            if self.show and step in self.window:
                rows = host_arrays(dict(batch))
                show_rows(parts.task.show, parts.loader, step, data_step, rows, self.screen)
            lines = leg.stage.entries.get(step, [])
            digests = [digests_of(journal, parts, line, batch) for line in lines]
            # on the way to the window too: the first step that differs is to be named
            differs = difference(lines, found_again(digests, data_step, told))
            elsewhere = leg.stage.processes != jax.process_count()
            if differs and elsewhere and "batch digest" not in differs:
                self.screen.say(
                    f"{differs}\n(steps from {step:,} on are not proved here: {leg.stage}; this is "
                    f"{jax.process_count()}, and sums across processes may add in another order)"
                )
                return NOT_HERE, state
            if differs:
                self.screen.say(differs)
                return DIFFERS, state
            meter.advance()
        return PROVED, state


def _moved(state: TrainState, abstract: TrainState) -> TrainState:
    return jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), state, abstract)


def digests_of(journal: Run, parts: Assembly, line: Entry, batch: Any) -> tuple[str, str]:
    """Then and now: of rows as they were made or, in older ledgers, of the batch on devices."""
    if not journal.proves(line):
        return line.digest, digest(host_arrays(batch))
    return journal.digest(line), journal.remade(parts.data, line)


def found_again(
    digests: Sequence[tuple[str, str]], data_step: int, told: Mapping[str, Any]
) -> dict[str, Any]:
    """What a recomputed step has to be equal in to its line of the ledger."""
    return {
        "digests": digests,
        "data_step": data_step,
        "loss_bits": float_bits(host_arrays(told["loss"])),
        "grad_norm": finite(host_arrays(told["grad_norm"])),
    }


def difference(entries: Sequence[Entry], found: Mapping[str, Any]) -> str:
    """What differs from the ledger, in words; "" where nothing does."""
    for entry, (then, now) in zip(entries, found["digests"], strict=True):
        which = f"step {entry.step:,} differs from the ledger's line of launch {entry.launch}: "
        if then != now:
            return f"{which}batch digest {then} in the ledger, {now} now"
        if entry.loss_bits != found["loss_bits"]:
            was, now = entry.loss_bits, found["loss_bits"]
            return (
                f"{which}loss bits {was} ({_value(was)}) in the ledger, {now} ({_value(now)}) now; "
                "the batch is the same"
            )
        for name in ("data_step", "grad_norm"):
            was = getattr(entry, name)
            if was != found[name]:
                return f"{which}{name} {was} in the ledger, {found[name]} now; the loss is the same"
    return ""


def _value(bits: str | None) -> np.float32:
    return np.uint32(int(bits or "7fc00000", 16)).view(np.float32)
