"""What two runs have in common: the same batches, from which step on not, and what explains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checkpoint.state import differences, unfold
from pipeline.checks import shown
from pipeline.dataset import Dataset
from pipeline.debug.first_row import first_row
from pipeline.debug.journal.hosts import Digests
from pipeline.debug.journal.reading import Run
from pipeline.errors import JournalError

Datasets = tuple[Dataset | None, Dataset | None]
_TIMES = ("launch", "step", "unix_time", "host", "share", "dataset", "packages", "frontiers")


@dataclass
class Comparison:
    """What two runs' batches have in common.

    Attributes:
        steps: how many both have.
        equal: how many of them are equal, from the first on.
        step: the first that differs.
        row: of its batch, the first that differs, where a dataset was there to make it again.
        records: (run, where the row came from) in words.
        value: what differs in the row, in words.
        stages: fields of the datasets' fingerprints that differ, in words.
        note: what else there is to say.
        checked: lines of each run whose chain was held against their digests.
    """

    steps: int
    equal: int
    step: int | None = None
    row: int | None = None
    records: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    value: str = ""
    stages: dict[str, str] = field(default_factory=dict[str, str])
    note: str = ""
    checked: list[int] = field(default_factory=list[int])

    @property
    def ok(self) -> bool:
        return self.step is None

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "batches": self.steps,
            "equal": self.equal,
            "same": self.ok,
            "first_differing_step": self.step,
            "row": self.row,
            "records": [{"run": run, "record": record} for run, record in self.records],
            "value": self.value or None,
            "explained_by": self.stages,
            "note": self.note or None,
            "lines_checked": self.checked,
        }

    def lines(self) -> list[str]:
        """For people."""
        checked = " and ".join(f"{n:,}" for n in self.checked)
        last = [self.note] if self.note else []
        last.append(f"checked: the chains of {checked} lines follow from their digests")
        if self.ok:
            return [f"{self.equal:,} of {self.steps:,} batches equal", *last]
        told = [f"{self.equal:,} of {self.steps:,} batches equal, up to the first that differs"]
        if self.step is not None:
            told.append(f"first differing step  {self.step:,}")
        if self.row is not None:
            told.append(f"first differing row   {self.row}")
        told += [f"  {run}: {record}" for run, record in self.records]
        told += [f"  {self.value}"] if self.value else []
        told += [f"explained by  {text}" for text in self.stages.values()]
        return told + last


def compare(
    one: Run, other: Run, datasets: Callable[[], Datasets] = lambda: (None, None)
) -> Comparison:
    """Whether two runs trained on the same batches: whatever framework, hosts and workers.

    The chains of both, up to the first step that differs, are held against their digests.

    Args:
        one, other: the runs.
        datasets: gives that of each, where it is at hand, to name the row and record that differ:
            called only if batches do.

    Raises:
        JournalError: they have no step in common, their digests are of different kinds, a host's
            file is missing, or a line was changed after it was written.
    """
    runs, found = (one, other), (one.digests(), other.digests())
    steps, mine, its = np.intersect1d(found[0].step, found[1].step, return_indices=True)
    if not len(steps):
        spans = " and ".join(
            f"{run.folder} {_span(d.step)}" for run, d in zip(runs, found, strict=True)
        )
        raise JournalError(f"the runs have no step in common: {spans}.")
    unequal = np.flatnonzero(found[0].digest[mine] != found[1].digest[its])
    equal = int(unequal[0]) if len(unequal) else len(steps)
    step = int(steps[equal]) if len(unequal) else None
    checked = [run.verify(int(steps[-1]) if step is None else step) for run in runs]
    told = Comparison(len(steps), equal, step, checked=checked, note=_note(runs, found))
    if step is not None:
        told.stages = _explained(one, other, step)
        _name_row(told, runs, datasets(), step)
    return told


def _span(steps: NDArray[np.int64]) -> str:
    return f"has steps {steps[0]:,} to {steps[-1]:,}" if len(steps) else "has none"


def _note(runs: tuple[Run, Run], found: tuple[Digests, Digests]) -> str:
    # what the steps in common leave out
    last = [int(d.step[-1]) if len(d.step) else -1 for d in found]
    notes = [f"{run.folder} stands at step {step:,}" for run, step in zip(runs, last, strict=True)]
    notes = notes if last[0] != last[1] else []
    for run, digests in zip(runs, found, strict=True):
        if digests.lacking is not None:
            notes.append(f"process {digests.lacking} of {run.folder} has no line after that")
    return ", ".join(notes)


def _name_row(
    told: Comparison,
    runs: tuple[Run, Run],
    datasets: Datasets,
    step: int,
) -> None:
    sizes = [run.launch(run.line(step)).get("batch_size") for run in runs]
    if sizes[0] != sizes[1]:
        told.note = f"batch sizes differ: {sizes[0]} and {sizes[1]}, so no batches can be equal"
        return
    one, other = datasets
    if one is None or other is None:
        told.note = "for the row and record, give both datasets: --data A --data B"
        return
    found = first_row(runs, (one, other), step)
    told.row, told.records, told.value, told.note = found.row, [*found.records], *found[2:]


def _explained(one: Run, other: Run, step: int) -> dict[str, str]:
    mine, its = (run.launch(run.line(step)) for run in (one, other))
    if "dataset" not in mine or "dataset" not in its:
        return {}
    return differences(mine, unfold(its["dataset"]))


# ---- all of it


def diff(one: Run, other: Run, data: Comparison) -> tuple[bool, list[str], dict[str, Any]]:
    """Where two runs differ: data, losses, datasets and what their starts noted.

    Returns:
        Whether nothing differs, lines for people, and plain data.
    """
    settings = _settings(one, other)
    steps = {line.step: line for line in one.path()}
    pairs = [(steps[line.step], line) for line in other.path() if line.step in steps]
    loss = next((a.step for a, b in pairs if a.loss_bits != b.loss_bits), None)
    norm = next((a.step for a, b in pairs if a.grad_norm != b.grad_norm), None)
    lines = [*data.lines(), *_told("loss", loss, len(pairs)), *_told("grad_norm", norm, len(pairs))]
    if loss is not None and (data.step is None or loss < data.step):
        lines.append(
            f"losses differ before data does: from step {loss:,} on it is not the data. "
            "Devices, mesh, versions or the model's settings."
        )
    lines += [f"{key}: {shown(a)} and {shown(b)}" for key, (a, b) in settings.items()]
    equal = data.ok and loss is None and norm is None and not settings
    found = {
        "equal": equal,
        "data": data.as_json(),
        "first_differing_loss": loss,
        "first_differing_grad_norm": norm,
        "settings": {key: list(pair) for key, pair in settings.items()},
    }
    return equal, lines, found


def _told(name: str, step: int | None, n: int) -> list[str]:
    if step is None:
        return [f"{name}: equal in all {n:,} steps"]
    return [f"{name}: differs first at step {step:,}"]


def _settings(one: Run, other: Run) -> dict[str, tuple[Any, Any]]:
    mine, its = (run.launches[-1] if run.launches else {} for run in (one, other))
    keys = sorted({*mine, *its} - {*_TIMES})
    return {k: (mine.get(k), its.get(k)) for k in keys if mine.get(k) != its.get(k)}
