"""The node of a stage that changes values and keeps one row at each position."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Block, Columns, Origin
from pipeline.errors import CollateError
from pipeline.meter import METER, marked
from pipeline.nodes.faults import patiently
from pipeline.nodes.node import Over, numbered
from pipeline.nodes.scope import Scope, Stage
from pipeline.transforms.calling import called, maker, rows_of
from pipeline.transforms.collate import Empty, collate
from pipeline.tree import children, leaves, map_leaves
from pipeline.types import At, Site, Transform

FIRST = 16  # rows of the first piece, which tells how many bytes they have
PIECE = 1 << 19  # bytes of rows that are kept before they are copied: they stay in the CPU's caches


@dataclass(frozen=True, eq=False)
class Mapped(Over):
    """The rows beneath, changed by a map, random_map or map_with_index."""

    transform: Transform

    @cached_property
    def _number(self) -> int:
        return len(self.below.stages)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return (*self.below.stages, self.transform)

    def fingerprint(self) -> dict[str, str]:
        return {**self.below.fingerprint(), **numbered([self.transform], self._number)}

    def read(self, at: At, scope: Scope) -> Block:
        return self._applied(self.below.read(at, scope), at, scope)

    def _applied(self, block: Block, at: At, scope: Scope) -> Block:
        site, name = self._site(at, scope)
        return METER.timed(name, patiently, self.transform.apply, block, site)

    def _site(self, at: At, scope: Scope) -> tuple[Site, str]:
        found = scope.sites.get(self._number) or scope.site(self._number, self.transform)
        known, name = found
        return Site(known.seed, known.path, known.components, known.stage, at.index), name

    @cached_property
    def rowwise(self) -> tuple[Mapped, ...]:
        return (*self.below.rowwise, self) if self.transform.rowwise else ()

    def stacked(self, at: At, scope: Scope, empty: Empty) -> Block:
        n, run = len(at.index), self.rowwise
        if n < 2 or not run:
            return self.read(at, scope)
        block = run[0].below.read(at, scope)
        stages = [_Stage(stage, *stage._site(at, scope), block.origin) for stage in run]
        rows, stack, made = rows_of(block), _Stack(n, empty), block.made
        started, before = time.perf_counter(), METER.inside
        for start, stop in stack.spans():
            piece = rows[start:stop]
            for stage in stages:
                piece, made = stage.apply(piece, made, start)
            stack.add(piece)
        spent = time.perf_counter() - started - (METER.inside - before)
        for stage in stages:
            spent -= stage.tell()
        METER.add("collate", 0, 0, spent)
        return Block(stack.values(), block.origin, made)

    def varies(self, pinned: bool = False, values: bool = True) -> str | None:
        if self.transform.random and values:
            return f"{self.transform.kind} '{self.transform.name}'"
        return self.below.varies(pinned, values)


class _Stage:
    # one stage of a run, on the rows of a block a piece at a time
    def __init__(self, node: Mapped, site: Site, name: str, origin: Origin) -> None:
        self._site, self._name, self._origin = site, name, origin
        self._f, self._columns = cast(Any, node.transform).caller(origin, site)
        self._size, self._seconds = 0, 0.0

    def apply(self, rows: list[Any], made: str, first: int) -> tuple[list[Any], str]:
        """The rows from row `first` of the block on, changed, and which stage made None of any."""
        started = time.perf_counter()
        with marked(self._name):
            results = patiently(
                called, self._f, self._columns, rows, self._origin, self._site, first
            )
        own = maker(self._site, results, self._origin, first)
        self._seconds += time.perf_counter() - started
        if type(results[0]) is bytes:
            self._size += sum(len(row) for row in results if type(row) is bytes)
        if own and any(row is None for row in rows):
            own = made  # handed on
        return results, own or made

    def tell(self) -> float:
        """Account for it; the seconds that it took."""
        METER.add(self._name, len(self._origin), self._size, self._seconds)
        return self._seconds


class _Stack:
    """Rows copied into columns a piece at a time, sized by the first one.

    A row that is copied and dropped at once leaves its memory, which the CPU's caches hold, to the
    next. Rows that do not fit into columns are kept as they are.

    Args:
        n: how many there will be.
        empty: makes the columns.
    """

    def __init__(self, n: int, empty: Empty) -> None:
        self._n, self._empty, self._done, self._size = n, empty, 0, FIRST
        self._columns: Any = None
        self._leaves: list[NDArray[Any]] = []
        self._structure: Any = None
        self._kept: list[Any] | None = None

    def spans(self) -> Iterator[tuple[int, int]]:
        """Rows of the next piece: a few, then as many as take PIECE bytes."""
        while self._done < self._n:
            yield self._done, min(self._n, self._done + self._size)

    def add(self, rows: list[Any]) -> None:
        """The rows of the next piece."""
        if self._kept is None and not self._copied(rows):
            done = self._done
            self._kept = Columns.of(self._columns, done).slice(0, done).rows() if done else []
            self._size = self._n
        if self._kept is not None:
            self._kept += rows
        self._done += len(rows)

    def values(self) -> Columns | list[Any]:
        """All rows."""
        return Columns.of(self._columns, self._n) if self._kept is None else self._kept

    def _copied(self, rows: list[Any]) -> bool:
        # whether the rows lie in the columns now
        start, stop = self._done, self._done + len(rows)
        views = [column[start:stop] for column in self._leaves]
        places = _Places([view for view in views if view.ndim > 1])
        try:
            tree = collate(rows, empty=places)
        except CollateError:
            return False
        found = [a for _, a in leaves(tree)]
        if self._columns is None:
            if not found or any(a.dtype.hasobject for a in found):
                return False
            self._leaves = [self._empty((self._n, *a.shape[1:]), a.dtype) for a in found]
            columns = iter(self._leaves)
            self._columns = map_leaves(lambda _: next(columns), tree)
            self._structure = _structure(tree)
            self._size = max(1, PIECE * len(rows) // max(1, sum(a.nbytes for a in found)))
            views = [column[start:stop] for column in self._leaves]
        if self._structure != _structure(tree):
            return False
        # each fits, and none lies in the place of another one
        fit = [
            a is view or (a.shape == view.shape and a.dtype == view.dtype and not places.gave(a))
            for view, a in zip(views, found, strict=True)
        ]
        if not all(fit):
            return False
        for view, a in zip(views, found, strict=True):
            if a is not view:
                view[...] = a
        return True


class _Places:
    # where arrays of a piece are written to, in the order of leaves: their places in the columns
    def __init__(self, views: list[NDArray[Any]]) -> None:
        self._views, self._given = iter(views), set[int]()

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        view = next(self._views, None) if len(shape) > 1 else None
        if view is None or view.shape != shape or view.dtype != dtype:
            return np.empty(shape, dtype)
        self._given.add(id(view))
        return view

    def gave(self, a: NDArray[Any]) -> bool:
        return id(a) in self._given


def _structure(tree: Any) -> Any:
    parts = children(tree)
    return None if parts is None else (type(tree), [(k, _structure(part)) for k, part in parts])
