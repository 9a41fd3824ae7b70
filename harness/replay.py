"""Whether recomputed steps equal what the ledger says, and what their rows held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from harness.assembly import Assembly, assemble
from harness.checkpoint import Checkpoints
from harness.config import Config
from harness.errors import CheckpointError, ConfigError
from harness.ledger import Entry, finite, float_bits, read
from harness.metrics import Screen
from harness.rundir import RunDir
from harness.sharding import host_arrays
from harness.step import TrainState
from harness.update import update
from pipeline.debug.digest import digest
from pipeline.debug.journal import Run
from pipeline.provenance.where import SegmentOrigin


def replay(run: RunDir, cfg: Config, steps: range, *, show: bool, screen: Screen) -> bool:
    """Recompute steps from the nearest checkpoint before them and compare each with the ledger.

    A step that the ledger holds twice, after a crash, must equal both lines. Nothing is written.

    Returns:
        True if batch digests and loss bits of all steps are equal; else the first that differs
        was named.

    Raises:
        ConfigError: the ledger has no line for one of the steps.
        CheckpointError: no checkpoint stands before them, or the nearest is damaged.
    """
    entries, journal = _entries(run, steps), Run(run.path)
    with (
        assemble(run, cfg, screen) as parts,
        closing(
            Checkpoints(run.checkpoints, keep=cfg.keep, keep_every=cfg.keep_every, clean=False)
        ) as checkpoints,
    ):
        start, state = _nearest(checkpoints, parts, steps.start, screen)
        with screen.meter("replay", total=steps.stop - start) as meter:
            for step in range(start, steps.stop):
                data_step = parts.loader.step
                batch = next(parts.loader)
                state, told = update(parts, state, batch)
                if show and step in steps:
                    _show(parts, step, data_step, batch, screen)
                lines = entries.get(step, [])
                found = found_again(journal, parts, lines, batch, told)
                # on the way to the window too: the first step that differs is to be named
                differs = difference(lines, found)
                if differs:
                    screen.say(differs + _elsewhere(run, parts, entries[step]))
                    return False
                meter.advance()
    screen.say(f"{len(steps):,} steps proved equal, {steps.start:,} to {steps.stop - 1:,}")
    return True


def _digests(journal: Run, parts: Assembly, line: Entry, batch: Any) -> tuple[str, str]:
    # then and now: of rows as they were made or, in older ledgers, of the batch on devices
    if not journal.proves(line):
        return line.digest, digest(host_arrays(batch))
    return journal.digest(line), journal.remade(parts.data, line)


def _entries(run: RunDir, steps: range) -> dict[int, list[Entry]]:
    found: dict[int, list[Entry]] = {}
    known = read(run.ledger)
    for entry in known:
        found.setdefault(entry.step, []).append(entry)
    missing = [step for step in steps if step not in found]
    if missing:
        last = max((entry.step for entry in known), default=-1)
        raise ConfigError(
            f"the ledger has no line for step {missing[0]:,}: it goes up to {last:,}. "
            f"Choose --steps within 0:{last + 1}."
        )
    return found


def _nearest(
    checkpoints: Checkpoints, parts: Assembly, step: int, screen: Screen
) -> tuple[int, TrainState]:
    before = [s for s in checkpoints.steps if s <= step]
    if not before:
        raise CheckpointError(
            f"no checkpoint stands at or before step {step:,}; there are {checkpoints.steps}. "
            "Choose later steps."
        )
    screen.say(f"from checkpoint {before[-1]:,}")
    return before[-1], checkpoints.restore(before[-1], parts.functions, parts.loader)


def found_again(
    journal: Run, parts: Assembly, lines: Sequence[Entry], batch: Any, told: Mapping[str, Any]
) -> dict[str, Any]:
    """What a recomputed step, the loader's last, has to be equal in to its lines of the ledger."""
    return {
        "digests": [_digests(journal, parts, line, batch) for line in lines],
        "data_step": parts.loader.last_step,
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


def _elsewhere(run: RunDir, parts: Assembly, entries: Sequence[Entry]) -> str:
    """A loss keeps its bits only on the same mesh and kind of device: say if these changed."""
    mesh = dict(parts.mesh.shape)
    launches = {entry.launch for entry in entries}
    others = [x["mesh"] for x in run.all_launches() if x["launch"] in launches if x["mesh"] != mesh]
    return f"\n(that launch ran on the mesh {others[0]}, this is {mesh})" if others else ""


def _show(
    parts: Assembly, step: int, data_step: int, batch: Mapping[str, Any], screen: Screen
) -> None:
    screen.say(f"step {step:,}, data step {data_step:,}")
    rows = host_arrays(dict(batch))
    for i, origin in enumerate(parts.loader.where(data_step)):
        row = {name: values[i] for name, values in rows.items()}
        for k, segment in enumerate(origin.segments):
            screen.say(f"  row {i}  {_place(segment)}\n    {parts.task.show(row, k)}")


def _place(segment: SegmentOrigin) -> str:
    row = segment.row
    place = f"epoch {row.epoch}  record {row.file_record} of {Path(row.file).name}"
    return f"{place}  tokens [{segment.start}:{segment.stop}]"
