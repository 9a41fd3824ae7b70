"""Where rows come from, for people: each row's component, file, record, epoch and segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.block import Origin
from pipeline.types import Component


class SegmentOrigin(NamedTuple):
    """One document of a packed row: tokens `[start, stop)` of that row of the dataset beneath."""

    row: RowOrigin
    start: int
    stop: int


class RowOrigin(NamedTuple):
    """One row's provenance.

    Attributes:
        component: names that lead to its source, joined by "/"; "" in a plain chain.
        record: the record's index in the source.
        epoch: how often it had been drawn before.
        place: the row's place among the record's rows.
        file: the file that holds the record, or the source's type.
        file_record: its index in that file.
        segments: what fills a packed row.
    """

    component: str
    record: int
    epoch: int
    place: tuple[int, ...]
    file: str
    file_record: int
    segments: tuple[SegmentOrigin, ...]


class Provenance(Sequence[RowOrigin]):
    """The provenance of a batch's rows, row by row; `print` it for a table."""

    def __init__(self, components: Sequence[Component], origin: Origin) -> None:
        self._rows = tuple(_rows(components, origin))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> RowOrigin:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._rows[i]

    def __iter__(self) -> Iterator[RowOrigin]:
        return iter(self._rows)

    def __repr__(self) -> str:
        lines = ["row  epoch  record  of"]
        for i, row in enumerate(self._rows):
            if not row.segments:
                lines.append(f"{i:3}  {row.epoch:5}  {row.file_record:6}  {_source(row)}")
            for s in row.segments:
                span = f"[{s.start}:{s.stop}]"
                lines.append(
                    f"{i:3}  {s.row.epoch:5}  {s.row.file_record:6}  {_source(s.row)} {span}"
                )
        return "\n".join(lines)


def _source(row: RowOrigin) -> str:
    place = f" place {list(row.place)}" if row.place else ""
    return f"{row.file}{f' ({row.component})' if row.component else ''}{place}"


def _rows(components: Sequence[Component], origin: Origin) -> list[RowOrigin]:
    files, inner = _files(components, origin)
    inside = None
    bounds = np.zeros(len(origin) + 1, np.int64)
    if origin.segments is not None:
        s, bounds = origin.segments, origin.segments.bounds
        below = _rows(components, s.origin)
        spans = zip(below, s.start.tolist(), s.stop.tolist(), strict=True)
        inside = [SegmentOrigin(*span) for span in spans]
    return [
        RowOrigin(
            "/".join(components[int(origin.component[i])].path),
            int(origin.record[i]),
            int(origin.epoch[i]),
            tuple(int(p) for p in origin.place[i] if p >= 0),
            files[i],
            inner[i],
            tuple(inside[bounds[i] : bounds[i + 1]]) if inside else (),
        )
        for i in range(len(origin))
    ]


def _files(components: Sequence[Component], origin: Origin) -> tuple[list[str], list[int]]:
    # one `where` call a source
    files, inner = [""] * len(origin), [0] * len(origin)
    for c in np.unique(origin.component):
        source = components[int(c)].source
        here = np.flatnonzero(origin.component == c)
        records = origin.record[here]
        known = getattr(source, "where", None)
        found = known(records) if known else [(type(source).__name__, r) for r in records]
        for i, (file, record) in zip(here, found, strict=True):
            files[i], inner[i] = str(file), int(record)
    return files, inner
