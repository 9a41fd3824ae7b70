"""Where rows come from, readable: each row's component, file, record, epoch and segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Origin, Segments
from pipeline.errors import PositionError
from pipeline.types import Component


class SegmentOrigin(NamedTuple):
    """One document of a packed row: tokens `[start, stop)` of `row`, a row beneath the pack."""

    row: RowOrigin
    start: int
    stop: int


class RowOrigin(NamedTuple):
    """One row's provenance.

    Attributes:
        component: names that lead to its source, joined by "/"; "" in a plain chain.
        record: the record's index in the source.
        epoch: how often the record had been drawn before.
        place: the row's place among the record's rows.
        file: the file that holds the record, or the source's type.
        file_record: the record's index in that file.
        segments: the documents that fill a packed row; else ().
        beside: the records of a zip's other datasets; else ().
    """

    component: str
    record: int
    epoch: int
    place: tuple[int, ...]
    file: str
    file_record: int
    segments: tuple[SegmentOrigin, ...]
    beside: tuple[RowOrigin, ...] = ()


class Provenance(Sequence[RowOrigin]):
    """The provenance of a batch's rows, row by row; `print` it for a table.

    Attributes:
        origin: the same provenance as arrays.
    """

    def __init__(self, components: Sequence[Component], origin: Origin) -> None:
        self._components, self.origin = components, origin

    @cached_property
    def _rows(self) -> tuple[RowOrigin, ...]:
        return tuple(_rows(self._components, self.origin))

    def __len__(self) -> int:
        return len(self.origin)

    @overload
    def __getitem__(self, i: int | np.integer[Any]) -> RowOrigin: ...
    @overload
    def __getitem__(self, i: slice | Sequence[int] | NDArray[Any]) -> tuple[RowOrigin, ...]: ...
    def __getitem__(
        self, i: int | np.integer[Any] | slice | Sequence[int] | NDArray[Any]
    ) -> RowOrigin | tuple[RowOrigin, ...]:
        """A row by its number, or several by a slice, an array of numbers or a mask.

        >>> from pipeline import Dataset, Loader
        >>> loss = np.array([0.1, 9.0, 0.2, 7.0])
        >>> [row.record for row in Loader(Dataset(range(8)), 4).where(1)[loss > 5]]
        [5, 7]
        """
        if isinstance(i, slice):
            return self._rows[i]
        which = np.asarray(i)
        which = which if which.size else which.astype(np.int64)
        if which.ndim == 0 and which.dtype.kind in "iu":
            return self._rows[int(which)]
        try:
            return tuple(self._rows[k] for k in np.arange(len(self))[which].ravel().tolist())
        except IndexError as e:
            raise PositionError(f"rows of a batch of {len(self)}: {e}") from e

    def __iter__(self) -> Iterator[RowOrigin]:
        return iter(self._rows)

    def __repr__(self) -> str:
        return self.table()

    def table(self) -> str:
        """A line for each row, or for each document of a packed row, with its token span.

        >>> from pipeline import Dataset, Loader
        >>> docs = Dataset([np.array([5, 6, 7]), np.array([8])]).pack(3)
        >>> print(Loader(docs, 2).where(0).table())
        row  epoch  record  of            tokens
          0      0       0  MemorySource  0:3
          1      0       1  MemorySource  0:1
        """
        lines = [line for i, row in enumerate(self._rows) for line in _lines(i, row)]
        lines.insert(0, _TITLES)
        # a column whose cells are all empty is left out
        used = [c for c in range(len(_TITLES)) if c < 4 or any(x[c] for x in lines[1:])]
        columns = [_aligned([line[c] for line in lines], right=c < 3) for c in used]
        return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


_TITLES = ("row", "epoch", "record", "of", "component", "place", "tokens")


def _lines(i: int, row: RowOrigin) -> list[tuple[str, ...]]:
    documents = [(s.row, f"{s.start}:{s.stop}") for s in row.segments] or [(row, "")]
    documents = [(each, span) for top, span in documents for each in (top, *top.beside)]
    documents += [(each, "") for each in row.beside if row.segments]
    return [
        (
            str(i),
            str(of.epoch),
            str(of.file_record),
            of.file,
            of.component,
            "/".join(map(str, of.place)),
            tokens,
        )
        for of, tokens in documents
    ]


def _aligned(cells: list[str], *, right: bool) -> list[str]:
    width = max(map(len, cells))
    return [cell.rjust(width) if right else cell.ljust(width) for cell in cells]


def _rows(components: Sequence[Component], origin: Origin) -> list[RowOrigin]:
    files, inner = _files(components, origin)
    inside = _parts(components, origin.segments, len(origin))
    beside = _parts(components, origin.beside, len(origin))
    return [
        RowOrigin(
            "/".join(components[int(origin.component[i])].path),
            int(origin.record[i]),
            int(origin.epoch[i]),
            tuple(int(p) for p in origin.place[i] if p >= 0),
            files[i],
            inner[i],
            inside[i],
            tuple(part.row for part in beside[i]),
        )
        for i in range(len(origin))
    ]


def _parts(
    components: Sequence[Component], parts: Segments | None, n: int
) -> list[tuple[SegmentOrigin, ...]]:
    # the segments of each of n rows
    if parts is None:
        return [()] * n
    spans = zip(
        _rows(components, parts.origin), parts.start.tolist(), parts.stop.tolist(), strict=True
    )
    every = [SegmentOrigin(*span) for span in spans]
    return [tuple(every[a:b]) for a, b in pairwise(parts.bounds.tolist())]


def _files(components: Sequence[Component], origin: Origin) -> tuple[list[str], list[int]]:
    # one call of `where` for each source
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
