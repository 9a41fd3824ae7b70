"""Where two runs' batches of a step differ: the first row, its records, and the first value."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.checks import shown
from pipeline.dataset import Dataset
from pipeline.debug.journal.reading import Run
from pipeline.debug.journal.tap import Rows
from pipeline.errors import MismatchError
from pipeline.provenance.where import Provenance, RowOrigin
from pipeline.tree import leaves


class Difference(NamedTuple):
    """What differs between two runs' batches of a step.

    Attributes:
        row: of the global batch; None where both datasets give the same rows now.
        records: (run, where the row came from) in words.
        value: the first value that differs, in words.
        note: why there is no row.
    """

    row: int | None = None
    records: tuple[tuple[str, str], ...] = ()
    value: str = ""
    note: str = ""


def first_row(runs: tuple[Run, Run], datasets: tuple[Dataset, Dataset], step: int) -> Difference:
    """The first row that differs in a step's batches, made again from the datasets of both runs."""
    try:
        made = [_made(run, ds, step) for run, ds in zip(runs, datasets, strict=True)]
    except MismatchError as e:  # as where one name was edited between two runs
        return Difference(note=f"the row and record cannot be named: {e}")
    digests = [dict(_by_position(rows)) for rows, _ in made]
    positions = sorted({*digests[0], *digests[1]})
    row = next((p for p in positions if digests[0].get(p) != digests[1].get(p)), None)
    if row is None:
        return Difference(
            note="made again now, both datasets give the same rows there: the datasets that the "
            "runs saw are not these, or a function of theirs is not pure (python -m pipeline check)"
        )
    values = [_value(rows, row) for rows, _ in made]
    if values[0] is None or values[1] is None:
        return Difference(row[1])
    value, token = _difference(values[0], values[1])
    records = [
        (str(run.folder), _named(origins.get(row), token))
        for run, (_, origins) in zip(runs, made, strict=True)
    ]
    return Difference(row[1], tuple(records), value)


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
