"""The node of a stage that changes values and keeps one row at each position."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

from pipeline.block import Block, Origin
from pipeline.meter import BEACON, METER, marked
from pipeline.nodes.faults import halved, transient
from pipeline.nodes.node import Over, numbered
from pipeline.nodes.scope import Scope, Stage
from pipeline.transforms.calling import called, maker, rows_of, say_exit, stopped
from pipeline.transforms.collate import Empty, Look
from pipeline.transforms.lending import Given
from pipeline.transforms.stacking import FIRST, Put, Stack
from pipeline.tree import fresh
from pipeline.types import At, Site, Transform

UNUSUAL = object()  # stands for a row that is None, or of a type not met before


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
        return halved(lambda at: self.below.read(at, scope), partial(self._changed, scope), at)

    def _changed(self, scope: Scope, block: Block, at: At) -> Block:
        site, name = self._site(at, scope)
        return METER.timed(name, self.transform.apply, block, site)

    def _site(self, at: At, scope: Scope) -> tuple[Site, str]:
        found = scope.sites.get(self._number) or scope.site(self._number, self.transform)
        known, name = found
        return Site(known.seed, known.path, known.components, known.stage, at.index), name

    @cached_property
    def _hint(self) -> _Hint:
        return _Hint()

    @cached_property
    def rowwise(self) -> tuple[Mapped, ...]:
        return (*self.below.rowwise, self) if self.transform.rowwise else ()

    def stacked(self, at: At, scope: Scope, empty: Empty) -> Block:
        run = self.rowwise
        if len(at.index) < 2 or not run:
            return self.read(at, scope)
        block = run[0].below.read(at, scope)
        try:
            found = self._stacked(block, at, scope, empty)
        except OSError as error:
            if not transient(error):
                raise
            found = None
        # functions may have changed rows in place: all begin anew with fresh ones
        return self.read(at, scope) if found is None else found

    def _stacked(self, block: Block, at: At, scope: Scope, empty: Empty) -> Block | None:
        # None where a row is unlike those before
        n, run = len(at.index), self.rowwise
        stages = [_Stage(stage, *stage._site(at, scope), block.origin) for stage in run]
        rows, stack, made = rows_of(block), Stack(n, empty, self._hint.first), block.made
        started, before = time.perf_counter(), METER.inside
        for start, stop in stack.spans():
            if self._hint.alike and stack.put is not None and BEACON.tell is None:
                if not _one_by_one(stages, rows, start, stack.put):
                    self._hint.alike = False
                    return None
                stack.finish()
                continue
            piece, lists, lent = rows[start:stop], 2, False
            for stage in stages:
                given = Given(piece, lists, lent)
                piece, made = stage.apply(given, made, start)
                lists, lent = 1, given.lent and not given.copied
                del given  # it holds rows
            stack.add(piece, stages[-1].look)
            del piece  # its memory is the next rows'
        self._hint.first = stack.first
        spent = time.perf_counter() - started - (METER.inside - before)
        for stage in stages:
            spent -= stage.tell()
        METER.add("collate", 0, 0, spent)
        return Block(stack.values(), block.origin, made)

    def varies(self, pinned: bool = False, values: bool = True) -> str | None:
        if self.transform.random and values:
            return f"{self.transform.kind} '{self.transform.name}'"
        return self.below.varies(pinned, values)


class _Hint:
    # what earlier works showed: rows of the first piece, and that large rows fit like the first
    first, alike = FIRST, True


class _Stage:
    # one stage of a run, on the rows of a block a piece at a time; `look` tells of the rows that
    # `apply` returned last
    def __init__(self, node: Mapped, site: Site, name: str, origin: Origin) -> None:
        self._site, self.name, self._origin = site, name, origin
        self._f, self._columns = cast(Any, node.transform).caller(origin, site)
        self._size, self._seconds = 0, 0.0
        self._copies = False  # whether rows are copied for the function, as it changes them
        self.look, self._met = Look(set()), set[type]()

    def apply(self, rows: Given, made: str, first: int) -> tuple[list[Any], str]:
        """The rows from row `first` of the block on, changed, and which stage made None of any."""
        started = time.perf_counter()
        with marked(self.name):
            results = called(self._f, self._columns, rows, self._origin, self._site, first)
        look = Look.at(results)
        kinds = look.kinds
        own = maker(self._site, results, self._origin, first, kinds)
        self._seconds += time.perf_counter() - started
        self.look, self._met = look, self._met | kinds
        if bytes in kinds:
            self._size += sum(len(row) for row in results if type(row) is bytes)
        if own and any(row is None for row in rows.all):
            own = made  # handed on
        self._copies = rows.copied
        return results, own or made

    def one(self, i: int, row: Any) -> Any:
        """Row i of the block, changed; `UNUSUAL` where `apply` has to look at it."""
        columns, started = self._columns, time.perf_counter()
        given = fresh(row) if self._copies else row
        row = self._f(*[column[i] for column in columns], given) if columns else self._f(given)
        self._seconds += time.perf_counter() - started
        kind = type(row)
        if kind is bytes:
            self._size += len(row)
        return row if row is not None and kind in self._met else UNUSUAL

    def located(self, error: BaseException, i: int) -> BaseException:
        """What to raise where the function raised an error for row i of the block."""
        if isinstance(error, StopIteration):
            error = stopped(self._site)
        self._site.annotate(error, self._origin, i)
        say_exit(error)
        return error

    def tell(self) -> float:
        """Account for it; the seconds that it took."""
        METER.add(self.name, len(self._origin), self._size, self._seconds)
        return self._seconds


def _one_by_one(stages: list[_Stage], rows: list[Any], first: int, put: Put) -> bool:
    """Have rows from `first` on changed and put, each before the next one; False if one is unlike.

    Rows up to that one have then been through the functions, and must not go through them again.
    """
    i, stage = first, stages[0]
    try:
        with marked(", ".join(stage.name for stage in stages)):
            for i in range(first, len(rows)):
                row = rows[i]
                for stage in stages:
                    row = stage.one(i, row)
                    if row is UNUSUAL:
                        return False
                if not put(i, row):
                    return False
    except BaseException as error:
        raise stage.located(error, i)  # noqa: B904
    return True
