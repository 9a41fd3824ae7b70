"""What the nodes that join several datasets share: named parts, their components and paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.block import Block, Int64s, Origin, Segments
from pipeline.errors import ChainError
from pipeline.meter import METER
from pipeline.nodes.node import Frontiers, Node, Span
from pipeline.nodes.scope import Path, Scope
from pipeline.types import At, Component

if TYPE_CHECKING:
    from pipeline.nodes.part import Part

NONE = np.zeros(0, np.int64)
SHOWN = 8  # datasets of a join that its repr shows, at most
CALLS = {"zip": "zip_datasets"}  # public functions whose names are not their nodes' kinds


@dataclass(frozen=True, eq=False)
class Joined(Node):
    """Named parts as one dataset.

    Attributes:
        named: the parts by name, in order.
    """

    named: Mapping[str, Part]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ChainError(f"{self.kind} of no datasets: give at least one")
        for name, part in self.parts.items():
            if part.streamed and not self.streamed:
                raise ChainError(
                    f"{self.kind} needs rows by position, but {part.counting} of "
                    f"dataset {name!r} counts rows as they come. Move it after the {self.kind}."
                )

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        return self.named

    @cached_property
    def cycle(self) -> int:
        return max(part.node.cycle for part in self.parts.values())

    def components(self, path: Path) -> tuple[Component, ...]:
        found = [part.node.components((*path, name)) for name, part in self.parts.items()]
        return tuple(component for some in found for component in some)

    def written(self, seed: int) -> list[str]:
        lines = [f"{CALLS.get(self.kind, self.kind)}({self.rule()}seed={seed})"]
        for name, part in list(self.parts.items())[:SHOWN]:
            first, *rest = part.written()
            lines += [f"  {name!r}: {first}", *(f"  {line}" for line in rest)]
        if len(self.parts) > SHOWN:
            lines.append(f"  and {len(self.parts) - SHOWN} more")
        return lines

    @property
    def dealt(self) -> int:
        return max(part.node.dealt for part in self.parts.values())

    def rule(self) -> str:
        """The options of the join, as a user writes them."""
        return ""

    def fingerprint(self) -> dict[str, str]:
        parts = {f"{n}.{k}": v for n, p in self.parts.items() for k, v in p.fingerprint().items()}
        # older versions gave pinned orders other rows: this key refuses their states and scans
        orders = {"orders": "pinned"} if self.pinned_orders else {}
        return {"root": f"{self.kind} {' '.join(self.parts)}", **orders, **parts}

    def orders(self, scope: Scope) -> Iterator[tuple[object, ...]]:
        for name, part in self.parts.items():
            yield from part.node.orders(scope.inside(part, name))

    def varies(self, pinned: bool = False, values: bool = True) -> str | None:
        found = (part.node.varies(pinned, values) for part in self.parts.values())
        return next(filter(None, found), None)

    def positions(self, spans: list[Span], order: int, low: int, high: int, scope: Scope) -> Int64s:
        head = "/".join((*scope.path, ""))
        inside = [span for span in spans if span[0].startswith(head)]
        return self._positions(inside, order, low, high, scope) if inside else NONE

    def _positions(
        self, spans: list[Span], order: int, low: int, high: int, scope: Scope
    ) -> Int64s:
        raise NotImplementedError

    def sized(self, head: str) -> Frontiers:
        found: Frontiers = {}
        for name, part in self.parts.items():
            found |= part.node.sized(f"{head}{name}.")
        return found

    # ---- the rows of parts, counted among all components

    @cached_property
    def firsts(self) -> dict[str, int]:
        """The number of each part's first component among those of all parts."""
        counts = [len(part.node.components(())) for part in self.parts.values()]
        return dict(zip(self.parts, np.cumsum([0, *counts])[:-1].tolist(), strict=True))

    def relabelled(self, name: str, rows: Any) -> Any:
        """A part's Block or Origin with its components counted among those of all parts."""
        return relabelled(self.firsts[name], rows)


def relabelled(first: int, rows: Any) -> Any:
    """A Block or Origin with components counted from `first` on."""
    if isinstance(rows, Block):
        return Block(rows.values, relabelled(first, rows.origin), rows.made)
    if not first:
        return rows
    inside: dict[str, Segments] = {
        kind: replace(segments, origin=relabelled(first, segments.origin))
        for kind, segments in (("segments", rows.segments), ("beside", rows.beside))
        if segments is not None
    }
    component = rows.component + first
    if inside:
        return replace(rows, component=component, **inside)
    return Origin(component, rows.epoch, rows.record, rows.place)


@dataclass(frozen=True, eq=False)
class RowJoin(Joined):
    """A join in which each row is one row of one part: the subclass says which."""

    def locate(self, at: At) -> tuple[Int64s, At]:
        """Which part gives each row, and where the row stands in it."""
        raise NotImplementedError

    def read(self, at: At, scope: Scope) -> Block:
        def read() -> Block:
            return self._gathered(at, scope, lambda part: part.read, Block.concat)

        return METER.timed(scope.source, read)

    def origin(self, at: At, scope: Scope) -> Origin:
        return self._gathered(at, scope, lambda part: part.origin, Origin.concat)

    def _gathered(
        self,
        at: At,
        scope: Scope,
        ask: Callable[[Part], Callable[[At, Scope], Any]],
        concat: Callable[[Sequence[Any]], Any],
    ) -> Any:
        # each part is asked once for all of its rows, which are then put into the order asked for
        which, at = self.locate(at)
        names = list(self.parts)
        order = np.argsort(which, kind="stable")
        which, at = which[order], at.take(order)
        starts = [0, *(np.flatnonzero(which[1:] != which[:-1]) + 1).tolist(), len(which)]
        found = [
            self._of_part(names[which[start]], at.take(slice(start, stop)), scope, ask)
            for start, stop in pairwise(starts)
            if start < stop
        ]
        if not found:
            return self._of_part(names[0], at, scope, ask)
        if len(found) == 1:
            return found[0]
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return concat(found).take(places)

    def _of_part(
        self,
        name: str,
        at: At,
        scope: Scope,
        ask: Callable[[Part], Callable[[At, Scope], Any]],
    ) -> Any:
        part = self.parts[name]
        return self.relabelled(name, ask(part)(at, scope.inside(part, name)))


def touched_parts(parts: Mapping[str, Part], rows: Mapping[str, int], head: str) -> Frontiers:
    """How many rows the mixes in named parts have drawn, once each part gave `rows[name]` rows."""
    found: Frontiers = {}
    for name, part in parts.items():
        found |= part.node.touched(rows[name], f"{head}{name}.")
    return found
