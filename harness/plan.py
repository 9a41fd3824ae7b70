"""Planning a replay: from which checkpoint, and on which meshes, steps can be computed again.

A loss has the same bits only on the mesh that it was computed on. Successive launches on the same
kind of mesh form a stage. The steps of a stage are proved on its mesh: from a checkpoint of the
stage, or from one of an earlier stage, by first computing that stage's steps on its mesh.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.errors import CheckpointError, ConfigError, DamageError
from harness.ledger import Entry


@dataclass
class Stage:
    """Successive launches on the same kind of mesh.

    Attributes:
        launches: their numbers.
        mesh: sizes of the axes with more than one device.
        processes: how many processes trained together.
        begin: the step at which its first launch began.
        end: the step at which the next stage began; later checkpoints are not of this stage.
        entries: its ledger lines by step.
    """

    launches: list[int]
    mesh: dict[str, int]
    processes: int
    begin: int
    end: float = math.inf
    entries: dict[int, list[Entry]] = field(default_factory=dict)

    def __str__(self) -> str:
        axes = " x ".join(f"{axis} {size}" for axis, size in self.mesh.items()) or "1 device"
        many = f" in {self.processes} processes" if self.processes > 1 else ""
        s = "es" if len(self.launches) > 1 else ""
        return f"launch{s} {', '.join(map(str, self.launches))} on {axes}{many}"

    @property
    def devices(self) -> int:
        return math.prod(self.mesh.values())


class Leg(NamedTuple):
    """Steps [start, stop), which are computed on the mesh of a stage."""

    stage: Stage
    start: int
    stop: int


def check_known(steps: range, known: Collection[int]) -> None:
    """Check that the ledger has a line for each step.

    Raises:
        ConfigError: it has not; the message says which steps there are.
    """
    missing = [step for step in steps if step not in known]
    if missing:
        spans = ", ".join(f"{window.start}:{window.stop}" for window in windows(known))
        there = f"it has {spans}: choose steps of these"
        none = "it has no line at all. If the file is gone, restore it; else train first"
        raise ConfigError(
            f"the ledger has no line for step {missing[0]:,}; {there if known else none}."
        )


def windows(steps: Collection[int]) -> list[range]:
    """Steps as ranges, rising.

    >>> windows({0, 1, 2, 7})
    [range(0, 3), range(7, 8)]
    """
    rising, known = sorted(steps), set(steps)
    starts = [s for s in rising if s - 1 not in known]
    stops = [s + 1 for s in rising if s + 1 not in known]
    return list(map(range, starts, stops))


def stages(launches: Sequence[Mapping[str, Any]], entries: Sequence[Entry]) -> list[Stage]:
    """The stages of a run, in order, from its launches and ledger.

    >>> first = {"launch": 0, "step": 0, "mesh": {"data": 1}, "processes": 1}
    >>> second = {"launch": 1, "step": 5, "mesh": {"data": 2}, "processes": 1}
    >>> [str(stage) for stage in stages([first, second], [])]
    ['launch 0 on 1 device', 'launch 1 on data 2']
    """
    found: list[Stage] = []
    for launch in launches:
        mesh = {axis: size for axis, size in launch["mesh"].items() if size > 1}
        if found and (found[-1].mesh, found[-1].processes) == (mesh, launch["processes"]):
            found[-1].launches.append(launch["launch"])
        else:
            if found:
                found[-1].end = launch["step"]
            found.append(Stage([launch["launch"]], mesh, launch["processes"], launch["step"]))
    of = {number: stage for stage in found for number in stage.launches}
    for entry in entries:
        if entry.launch not in of and len(found) != 1:
            raise DamageError(
                f"launches.jsonl has no line of launch {entry.launch}, which says on what devices "
                f"step {entry.step:,} was computed: restore the file."
            )
        stage = of.get(entry.launch, found[0])  # all that are known are alike
        stage.begin = min(stage.begin, entry.step)
        stage.entries.setdefault(entry.step, []).append(entry)
    return found


def route(found: Sequence[Stage], number: int, start: int, checkpoints: Sequence[int]) -> list[Leg]:
    """The legs from a checkpoint to the state before step `start` of a stage.

    The first leg begins at the checkpoint. The last leg may be empty: then the checkpoint has the
    state.

    `found` are the stages of the run, `number` is the index of the one, `checkpoints` rise.

    Raises:
        CheckpointError: no checkpoint is early enough.
    """
    stage = found[number]
    own = [c for c in checkpoints if stage.begin <= c <= min(start, stage.end)]
    if own:
        return [Leg(stage, own[-1], start)]
    before = [i for i in range(number) if found[i].begin < stage.begin <= _last(found[i])]
    if not before:
        raise CheckpointError(
            f"no checkpoint stands at or before step {start:,} of {stage}; there are "
            f"{list(checkpoints)}. Choose later steps."
        )
    # the first stage that got this far saved the checkpoint that this stage began with
    return [*route(found, before[0], stage.begin, checkpoints), Leg(stage, stage.begin, start)]


def _last(stage: Stage) -> int:
    return max(stage.entries, default=stage.begin - 1) + 1
