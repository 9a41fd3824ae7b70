"""When records were trained on: their steps, and the row and tokens of each batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.block import Int64s, Origin, Segments
from pipeline.loader import Loader
from pipeline.types import Component

Record = tuple[str, int]
"""A component's names joined by "/", and the number of a record in its source."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One row, or one piece of a packed row, that holds a document.

    Attributes:
        step: data step.
        row: of the batch.
        epoch: how often the record had been drawn before.
        tokens: [start, stop) of the document that a packed row holds; None where it is a row.
    """

    step: int
    row: int
    epoch: int
    tokens: tuple[int, int] | None = None

    def __str__(self) -> str:
        span = "" if self.tokens is None else f" tokens {self.tokens[0]}:{self.tokens[1]}"
        return f"step {self.step} row {self.row}{span} (epoch {self.epoch})"


def occurrences(loader: Loader, step: int, records: Sequence[Record]) -> list[Occurrence]:
    """Where a step's batch holds any of some records, by row.

    >>> from pipeline import Dataset
    >>> docs = Dataset([np.arange(3), np.arange(2)]).pack(2)
    >>> print(*occurrences(Loader(docs, 3), 0, [("", 0)]), sep=", ")
    step 0 row 0 tokens 0:2 (epoch 0), step 0 row 1 tokens 2:3 (epoch 0)
    """
    where, names = loader.where(step), _numbers(loader.dataset.components)
    wanted = [(names[name], record) for name, record in records if name in names]
    return sorted(_found(step, where.origin, wanted), key=lambda o: (o.row, o.tokens or ()))


def _found(step: int, origin: Origin, wanted: list[tuple[int, int]]) -> list[Occurrence]:
    found: list[Occurrence] = []
    if origin.segments is None:
        for i in _among(origin, wanted).tolist():
            found.append(Occurrence(step, i, int(origin.epoch[i])))
    for parts, spans in ((origin.segments, True), (origin.beside, False)):
        if parts is not None:
            found += [_piece(step, parts, i, spans) for i in _among(parts.origin, wanted).tolist()]
    return found


def _piece(step: int, parts: Segments, i: int, spans: bool) -> Occurrence:
    row = int(np.searchsorted(parts.bounds, i, side="right")) - 1
    span = (int(parts.start[i]), int(parts.stop[i])) if spans else None
    return Occurrence(step, row, int(parts.origin.epoch[i]), span)


def _among(origin: Origin, wanted: list[tuple[int, int]]) -> Int64s:
    found = np.zeros(len(origin), bool)
    for component, record in wanted:
        found |= (origin.component == component) & (origin.record == record)
    return np.flatnonzero(found)


def _numbers(components: Sequence[Component]) -> dict[str, int]:
    return {"/".join(c.path): i for i, c in enumerate(components)}
