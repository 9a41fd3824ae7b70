"""When records were trained on: their steps, and the row and tokens of each batch."""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.block import Int64s, Origin, Segments
from pipeline.checkpoint.state import decode
from pipeline.loader import Loader
from pipeline.provenance.records import records_of
from pipeline.sampling.order import NoInverseError

Record = tuple[str, int]
"""A component's names joined by "/", and the number of a record in its source."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One row, or one piece of a packed row, that holds a document.

    Attributes:
        step: of the loader; of a run, its training step.
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


States = Sequence[tuple[int, Mapping[str, Any]]]
"""Saved states of a run, of all lanes, by the step of the next batch; it rises."""


def occurrences(
    loader: Loader,
    records: Sequence[Record],
    within: range,
    states: States = (),
    most: int = sys.maxsize,
) -> dict[int, list[Occurrence]]:
    """The steps whose batches hold any of some records; of the first, which rows.

    Where rows are counted as they come, arithmetic tells the blocks of the records, and only the
    steps between the saved states around these blocks are read again. Without states, or where
    rows are those of a mix of such datasets, all steps are.

    Args:
        loader: of the run, on one host; where rows are counted, it is left somewhere else.
        records: of which components and which numbers.
        within: steps to look at.
        states: of the run.
        most: steps of which rows are wanted.

    >>> from pipeline import Dataset
    >>> docs = Loader(Dataset([np.arange(3), np.arange(2)]).pack(2), 3)
    >>> print(*occurrences(docs, [("", 0)], range(1))[0], sep=", ")
    step 0 row 0 tokens 0:2 (epoch 0), step 0 row 1 tokens 2:3 (epoch 0)
    """
    streamed, found = loader.dataset.top.streamed, dict[int, list[Occurrence]]()
    for part in _ranges(loader, records, within, states) if records and len(within) else ():
        nearest = bisect_right(states, part.start, key=lambda s: s[0]) - 1
        if streamed and nearest >= 0:
            loader.load_state_dict(states[nearest][1])
        for step in loader.find(*records, within=part):
            if step not in found:
                found[step] = _of_step(loader, step, records) if len(found) < most else []
    return dict(sorted(found.items()))


def _ranges(
    loader: Loader, records: Sequence[Record], within: range, states: States
) -> list[range]:
    if loader.dataset.top.streamed and len(states):
        with suppress(NoInverseError):
            return _between(loader, records, within, states)
    return [within]


def _between(loader: Loader, records: Any, within: range, states: States) -> list[range]:
    top, last = loader.dataset.top, _places(states[-1])
    spans = records_of(loader.dataset.components, list(records))
    found = set[tuple[int, int]]()
    for lane, number in top.blocks_holding(spans, list(last.items())):

        def place(state: tuple[int, Any], lane: int = lane) -> Any:
            return _places(state)[lane]

        first = bisect_right(states, (number, 0), key=place) - 1
        end = bisect_right(states, (number, math.inf), key=place)
        begin = states[first][0] if first >= 0 else within.start
        found.add((begin, states[end][0] if end < len(states) else within.stop))
    # blocks that were begun behind the last state are not among these
    found.add((states[-1][0], within.stop))
    parts = [range(max(a, within.start), min(b, within.stop)) for a, b in sorted(found)]
    return [part for part in parts if len(part)]


def _places(state: tuple[int, Mapping[str, Any]]) -> dict[int, Any]:
    return dict(decode(state[1]).position.cursor.lanes)


def _of_step(loader: Loader, step: int, records: Sequence[Record]) -> list[Occurrence]:
    names = {"/".join(c.path): i for i, c in enumerate(loader.dataset.components)}
    wanted = [(names[name], record) for name, record in records]
    found = _found(step, loader.where(step).origin, wanted)
    return sorted(found, key=lambda o: (o.row, o.tokens or ()))


def _found(step: int, origin: Origin, wanted: list[tuple[int, int]]) -> list[Occurrence]:
    packed = origin.segments
    whole = np.ones(len(origin), bool) if packed is None else np.diff(packed.bounds) == 0
    rows = [i for i in _among(origin, wanted).tolist() if whole[i]]
    found = [Occurrence(step, i, int(origin.epoch[i])) for i in rows]
    for parts, spans in ((packed, True), (origin.beside, False)):
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
