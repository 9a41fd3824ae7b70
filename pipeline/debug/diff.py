"""What two runs have in common: the same batches, from which step on not, and what explains it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.checkpoint.state import differences
from pipeline.checks import shown
from pipeline.dataset import Dataset
from pipeline.debug.journal.ledger import Line
from pipeline.debug.journal.reading import Run
from pipeline.debug.journal.tap import Rows
from pipeline.errors import JournalError, MismatchError
from pipeline.provenance.where import Provenance, RowOrigin
from pipeline.tree import leaves

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
    """

    steps: int
    equal: int
    step: int | None = None
    row: int | None = None
    records: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    value: str = ""
    stages: dict[str, str] = field(default_factory=dict[str, str])
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.step is None and self.steps > 0

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
        }

    def lines(self) -> list[str]:
        """For people."""
        if self.ok:
            told = [f"{self.equal:,} of {self.steps:,} batches equal"]
            return told + ([self.note] if self.note else [])
        told = [f"{self.equal:,} of {self.steps:,} batches equal, up to the first that differs"]
        if self.step is not None:
            told.append(f"first differing step  {self.step:,}")
        if self.row is not None:
            told.append(f"first differing row   {self.row}")
        told += [f"  {run}: {record}" for run, record in self.records]
        told += [f"  {self.value}"] if self.value else []
        told += [f"explained by  {text}" for text in self.stages.values()]
        return told + ([self.note] if self.note else [])


def compare(
    one: Run, other: Run, datasets: tuple[Dataset | None, Dataset | None] = (None, None)
) -> Comparison:
    """Whether two runs trained on the same batches: whatever framework, hosts and workers.

    Of runs of one process each, chains are compared by bisection; of others, every step.

    Args:
        one, other: the runs.
        datasets: of each, where it is at hand: to name the row and record that differ.

    Raises:
        JournalError: their digests are of different kinds, or a host's file is missing.
    """
    steps = _common(one, other)
    if not steps:
        return Comparison(0, 0, note=f"{one.folder} and {other.folder} have no step in common")
    step, equal = _first_difference(one, other, steps)
    if step is None:
        last = [f"{run.folder} stands at step {_last(run):,}" for run in (one, other)]
        unequal = _last(one) != _last(other)
        return Comparison(len(steps), len(steps), note=", ".join(last) if unequal else "")
    found = Comparison(len(steps), equal, step, stages=_explained(one, other, step))
    sizes = [run.launch(run.line(step)).get("batch_size") for run in (one, other)]
    if sizes[0] != sizes[1]:
        found.note = f"batch sizes differ: {sizes[0]} and {sizes[1]}, so no batches can be equal"
        return found
    _name_row(found, (one, other), datasets, step)
    return found


def _common(one: Run, other: Run) -> Sequence[int]:
    if all(run.alone and len(run.ledger) == len(run.ledger.steps) for run in (one, other)):
        # every step between the ends has its one line: they need not be read
        mine, its = one.ledger.steps, other.ledger.steps
        return range(max(mine.start, its.start), min(mine.stop, its.stop))
    known = {line.step for line in one.path()}
    return [line.step for line in other.path() if line.step in known]


def _last(run: Run) -> int:
    line = run.ledger.last
    return line.step if line else -1


def _first_difference(one: Run, other: Run, steps: Sequence[int]) -> tuple[int | None, int]:
    # the first of the steps that differs, and how many before it are equal
    for run in (one, other):
        line = run.line(steps[0])
        if not run.proves(line):
            raise JournalError(
                f"{run.folder} has digests of batches on devices, from before the journal: they "
                "say nothing about another framework or mesh."
            )
    if one.alone and other.alone and one.ledger.steps.start == other.ledger.steps.start:
        low, high = 0, len(steps)  # equal below low, different from high on
        while low < high:
            middle = (low + high) // 2
            step = steps[middle]
            if one.line(step).chain == other.line(step).chain:
                low = middle + 1
            else:
                high = middle
        return (None, low) if low == len(steps) else (steps[low], low)
    wanted = set(steps)
    pairs = zip(_on(one, wanted), _on(other, wanted), strict=True)
    for i, (mine, its) in enumerate(pairs):
        if one.digest(mine) != other.digest(its):
            return mine.step, i
    return None, len(steps)


def _on(run: Run, steps: set[int]) -> Iterator[Line]:
    return (line for line in run.path() if line.step in steps)


def _explained(one: Run, other: Run, step: int) -> dict[str, str]:
    mine, its = (run.launch(run.line(step)) for run in (one, other))
    if "dataset" not in mine or "dataset" not in its:
        return {}
    flat = _flat(its["dataset"])
    return differences(mine, flat)


def _flat(folded: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in folded.items():
        many = isinstance(value, list)
        found |= {f"{key}.{i}": v for i, v in enumerate(value)} if many else {key: value}
    return found


# ---- the row


def _name_row(
    found: Comparison,
    runs: tuple[Run, Run],
    datasets: tuple[Dataset | None, Dataset | None],
    step: int,
) -> None:
    try:
        made = [
            _made(run, dataset, step)
            for run, dataset in zip(runs, datasets, strict=True)
            if dataset is not None
        ]
    except MismatchError as e:  # as where one name was edited between two runs
        found.note = f"the row and record cannot be named: {e}"
        return
    if len(made) < 2:
        found.note = "for the row and record, give both datasets: --data A --data B"
        return
    (rows, origins), (others, other_origins) = made
    digests = [dict(_by_position(side)) for side in (rows, others)]
    positions = sorted({*digests[0], *digests[1]})
    row = next((p for p in positions if digests[0].get(p) != digests[1].get(p)), None)
    if row is None:
        found.note = (
            "made again now, both datasets give the same rows there: the datasets that the runs "
            "saw are not these, or a function of theirs is not pure (python -m pipeline check)"
        )
        return
    found.row = row[1]
    values = [_value(side, row) for side in (rows, others)]
    if values[0] is not None and values[1] is not None:
        found.value, token = _difference(values[0], values[1])
        found.records = [
            (str(run.folder), _named(origin.get(row), token))
            for run, origin in zip(runs, (origins, other_origins), strict=True)
        ]


Position = tuple[int, int]  # batch of the step, row of the global batch


def _made(run: Run, dataset: Dataset, step: int) -> tuple[list[Rows], dict[Position, RowOrigin]]:
    rows = run.rows(dataset, run.line(step))
    origins: dict[Position, RowOrigin] = {}
    for k, part in enumerate(rows):
        origin = Provenance(dataset.components, part.take.block.origin)
        origins |= {(k, p): o for p, o in zip(part.positions.tolist(), origin, strict=True)}
    return rows, origins


def _by_position(batches: list[Rows]) -> list[tuple[Position, bytes]]:
    return [
        ((k, position), digest)
        for k, rows in enumerate(batches)
        for position, digest in zip(rows.positions.tolist(), rows.digests, strict=True)
    ]


def _value(rows: list[Rows], at: Position) -> Any:
    where = rows[at[0]].positions.tolist()
    return rows[at[0]].take.block.rows()[where.index(at[1])] if at[1] in where else None


def _difference(one: Any, other: Any) -> tuple[str, int | None]:
    """The first value that differs between two rows, in words, and its place along axis 0."""
    mine, its = dict(leaves(one)), dict(leaves(other))
    if mine.keys() != its.keys():
        return f"fields {sorted(mine)} and {sorted(its)}", None
    for name, value in sorted(mine.items()):
        a, b = np.asarray(value), np.asarray(its[name])
        called = name or "value"
        if a.shape != b.shape or a.dtype != b.dtype:
            text = f"{called}: {a.dtype}{list(a.shape)} and {b.dtype}{list(b.shape)}"
            return text, None
        unequal = np.atleast_1d(a != b)
        if a.dtype.kind == "f":
            unequal &= ~(np.isnan(np.atleast_1d(a)) & np.isnan(np.atleast_1d(b)))
        if unequal.any():
            at = np.argwhere(unequal)[0].tolist()
            first = tuple(at) if a.ndim else ()
            more = f"; {int(unequal.sum()):,} differ" if unequal.sum() > 1 else ""
            where = list(first) if first else ""
            text = f"{called}{where}: {_plain(a[first])} and {_plain(b[first])}{more}"
            return text, int(at[0]) if a.ndim == 1 else None
    return "values that compare as equal but differ in their bits", None


def _plain(value: Any) -> str:
    return shown(value.item() if isinstance(value, np.generic) else value, 40)


def _named(row: RowOrigin | None, token: int | None) -> str:
    if row is None:
        return "no such row"
    for segment in row.segments if token is not None else ():
        size = segment.stop - segment.start
        if token is not None and token < size:
            inside = f"token {segment.start + token} of "
            return inside + _named(segment.row, None)
        token = (token or 0) - size
    component = f" of component {row.component}" if row.component else ""
    return f"record {row.file_record} of {row.file}{component}, epoch {row.epoch}"


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
