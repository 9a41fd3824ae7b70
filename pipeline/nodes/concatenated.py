"""The node of concatenate: datasets one after another."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import ChainError
from pipeline.nodes.joined import NONE, RowJoin, touched_parts
from pipeline.nodes.node import Frontiers, Span
from pipeline.nodes.scope import Scope
from pipeline.types import ENDLESS, At


@dataclass(frozen=True, eq=False)
class Concatenated(RowJoin):
    """Indexed datasets one after another; an epoch is one epoch of each."""

    kind = "concatenate"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, part in self.parts.items():
            if part.length == ENDLESS:
                raise ChainError(f"{self.kind}: dataset {name!r} never ends. Repeat the whole.")

    @cached_property
    def ends(self) -> Int64s:
        """The position after each part's last row."""
        return np.cumsum([part.length for part in self.parts.values()])

    @cached_property
    def length(self) -> int:
        return int(self.ends[-1])

    def locate(self, at: At) -> tuple[Int64s, At]:
        which, index = self.find(at.index)
        return which, At(at.epoch, at.order, index)

    def find(self, position: Int64s) -> tuple[Int64s, Int64s]:
        """Which part gives the row at each position, and where in that part it stands."""
        which = np.searchsorted(self.ends, position, side="right").astype(np.int64)
        starts = np.concatenate([[0], self.ends])
        return which, position - starts[which]

    def place(self, name: str, index: Int64s) -> Int64s:
        """At which positions rows of one part stand: the inverse of `find`."""
        j = list(self.parts).index(name)
        return index + (int(self.ends[j - 1]) if j else 0)

    def _positions(
        self, spans: list[Span], order: int, low: int, high: int, scope: Scope
    ) -> Int64s:
        found = [NONE]
        for name, part in self.parts.items():
            if part.length:
                inside = scope.inside(part, name)
                index = part.node.positions(spans, order, 0, part.length, inside)
                found.append(self.place(name, index))
        return np.unique(np.concatenate(found))

    def touched(self, rows: int, head: str) -> Frontiers:
        again = rows > self.length
        given = {
            name: part.length + 1 if again else self._given(name, rows)
            for name, part in self.parts.items()
        }
        return touched_parts(self.parts, given, head)

    def _given(self, name: str, rows: int) -> int:
        # how many rows of a part stand among the first rows of an epoch
        def place(index: int) -> int:
            return int(self.place(name, np.array([index], np.int64))[0])

        return bisect_left(range(self.parts[name].length), rows, key=place)
