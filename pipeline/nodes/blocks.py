"""The node of filter, flat_map, bucket and pack: indexed rows, a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pipeline.block import Block, Origin
from pipeline.errors import StreamEndError
from pipeline.nodes.faults import anew, applied, good_rows, in_order
from pipeline.nodes.joined import relabelled
from pipeline.nodes.node import Frontiers, Node, Over, Span, numbered
from pipeline.nodes.ordered import Ordered
from pipeline.nodes.scope import Path, Scope, Stage
from pipeline.nodes.streamed import (
    Ask,
    Here,
    Pending,
    PieceReader,
    Spot,
    Streamed,
    check_numbers,
    unlifted,
)
from pipeline.sampling.cursor import Lane, Place
from pipeline.sampling.lanes import BlockGrid
from pipeline.sampling.repeat import Repeat
from pipeline.types import ENDLESS, At, Transform

BLOCK = 64  # rows of a block where no transform says how many
FAR = 256  # blocks of a lane that are begun ahead, at most


@dataclass(frozen=True, eq=False)
class Transforms(Over, Streamed):
    """Transforms that work on some rows at a time, and may change their number."""

    transforms: tuple[Transform, ...]

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return (*self.below.stages, *self.transforms)

    def cut(self, n: int) -> Node:
        return replace(self, transforms=self.transforms[:n])

    def fingerprint(self) -> dict[str, str]:
        own = numbered(self.transforms, len(self.below.stages))
        return {**self.below.fingerprint(), **own}

    def transformed(self, transform: Transform) -> Streamed:
        return replace(self, transforms=(*self.transforms, transform))

    @cached_property
    def block(self) -> int:
        """Approximate number of rows in a block: the most that any of the transforms asks for."""
        return max((t.block for t in self.transforms), default=0) or BLOCK

    def through(self, block: Block, scope: Scope) -> Block:
        """A block of rows after all transforms."""
        for i, transform in enumerate(self.transforms, len(self.below.stages)):
            block = applied(transform, i, block, scope)
        return block


@dataclass(frozen=True, eq=False)
class Blocks(Transforms):
    """The indexed dataset beneath in blocks, each of which goes through the transforms.

    A block is a pure function of the dataset, its lane and its number. There are no transforms
    where a mix with streamed datasets deals the rows of an indexed one.
    """

    @cached_property
    def counting(self) -> str:
        return f"{self.transforms[0].kind} '{self.transforms[0].name}'"

    @cached_property
    def counter(self) -> str:
        return self.transforms[0].kind if self.transforms else "mix"

    def repeated(self, repeat: Repeat) -> Streamed:
        return replace(self, below=Ordered(self.below, repeat))

    def grid(self, lanes: int) -> BlockGrid:
        """How the dataset beneath is cut into blocks, and these are dealt to lanes."""
        return BlockGrid(self.length, self.period, self.block, lanes)

    def rows(self, here: Here, lane: int, number: int) -> Block:
        """Block `number` of a lane, after the row-wise stages of the mixes above."""
        return self._rows(self._at(lane, number, here.lanes), here.scope, here.lift)

    def _rows(self, at: At, scope: Scope, lift: Callable[[Block], Block] = unlifted) -> Block:
        def read() -> Block:
            if not scope.skipping:
                return self.below.read(at, scope)
            good, bad = good_rows(self.below, at, scope)
            return in_order(good) if good or bad else self.below.read(at, scope)

        return anew(read, lambda block: lift(self.through(block, scope)), 1 + len(self.transforms))

    def failure(self, here: Here, lane: int, number: int) -> Exception | None:
        """An error of a block if each of its rows (or of the first 64) fails and is skipped."""
        scope, error = here.scope, None
        if not scope.skipping:
            return None
        strict = Scope(replace(scope.part, on_error="raise"), scope.path, scope.order)
        at = self._at(lane, number, here.lanes)
        for i in range(min(BLOCK, len(at.index))):
            try:
                self._rows(at.take([i]), strict)
            except Exception as e:
                error = e
            else:
                return None
        return error

    def records(self, here: Here, lane: int, number: int) -> Origin:
        """The provenance of the records that a block is made from, without reading them."""
        origin = self.below.origin(self._at(lane, number, here.lanes), here.scope)
        return relabelled(here.first, origin)

    def holding(
        self, spans: list[Span], here: Here, places: Sequence[Lane]
    ) -> list[tuple[int, int]]:
        grid, n = self.grid(here.lanes), self.length
        high = max((grid.bounds(lane, number)[1] for lane, (number, _) in places), default=0)
        found = [
            turn * n + self.below.positions(spans, turn, 0, min(n, high - turn * n), here.scope)
            for turn in range(-(-high // max(1, n)))
        ]
        rows = [row for some in found for row in some.tolist() if row < high]
        return sorted({grid.block_of(row) for row in rows})

    def _at(self, lane: int, number: int, lanes: int) -> At:
        rows = np.arange(*self.grid(lanes).bounds(lane, number))
        return At.of_rows(rows, max(1, self.length))

    def located(self, names: Path, here: Here) -> tuple[Blocks, Here]:
        return self, here

    def reader(self, here: Here, ask: Ask) -> BlockReader:
        return BlockReader(self, here, ask)

    def touched_lanes(self, places: Sequence[Lane], lanes: int, more: int, head: str) -> Frontiers:
        grid = self.grid(lanes)
        stops = [grid.bounds(lane, n - (not rest))[1] for lane, (n, rest) in places if n or rest]
        found = self.below.touched(ENDLESS if more else max(stops, default=0), head)
        # where blocks begin follows from the length of an epoch
        return found | self.below.sized(head) if stops or more else found


class BlockReader(PieceReader):
    """Reads lanes of blocks: a place is (number of the block, its rows given so far).

    Args:
        node: the node of the blocks.
        here: where the node stands.
        ask: begins a block.
    """

    arithmetic = True

    def __init__(self, node: Blocks, here: Here, ask: Ask) -> None:
        self._node, self._here = node, here
        self._ask, self._names = ask, here.scope.path
        self._behind = 0 if self._names else 1  # blocks kept behind a place; in a mix none
        self._grid, self._cycle = node.grid(here.lanes), node.cycle
        self._per_pass = self._grid.per_pass
        self._blocks: dict[int, dict[int, Pending]] = {}

    @property
    def endless(self) -> bool:
        return self._per_pass is None

    def start(self) -> Place:
        return 0, 0

    def check(self, place: Place) -> None:
        check_numbers(*place, count=2)

    def turn(self, place: Place, epoch: int) -> Place:
        return place if self._per_pass is None else (epoch * self._per_pass, 0)

    @property
    def patience(self) -> int:
        return 1 + self.most_empty // max(1, self._per_pass or 1)

    @property
    def cycle(self) -> int:
        return -(-self._cycle // self._grid.lanes)

    def spots(self, lane: int, place: Place, epoch: int) -> Iterator[Spot]:
        yield Spot(self, lane, place[0], self._end(epoch))

    def begun(self, lane: int, number: int) -> int:
        blocks, n = self._blocks.get(lane, {}), number
        while n in blocks:
            n += 1
        return n - number

    def begin(self, lane: int, number: int) -> None:
        self._blocks.setdefault(lane, {})[number] = self._ask(self._names, lane, number, False)

    def keep(self, lane: int, place: Place) -> None:
        blocks, number = self._blocks.get(lane, {}), place[0]
        for n in [n for n in blocks if not number - self._behind <= n <= number + FAR]:
            blocks.pop(n).cancel()

    def cancel(self) -> None:
        for blocks in self._blocks.values():
            for pending in blocks.values():
                pending.cancel()
        self._blocks.clear()

    def _end(self, epoch: int) -> int | None:
        return None if self._per_pass is None else (epoch + 1) * self._per_pass

    # ---- pieces

    def pull(self, lane: int, place: Place, epoch: int, want: int) -> tuple[list[Block], Place]:
        found, after = super().pull(lane, place, epoch, want)
        if self._here.scope.skipping and want and not found and place == self.turn(place, epoch):
            # a pass whose rows all fail is an error; one that a filter empties is not
            failure = self._node.failure(self._here, lane, place[0])
            if failure is not None:
                rows = self._node.length
                raise StreamEndError(
                    f"lane {lane} of {self._grid.lanes} gave no row of a pass of {rows}: "
                    + self._why(lane, failure)
                ) from failure
        return found, after

    def piece(self, lane: int, at: int, epoch: int) -> Block | None:
        end = self._end(epoch)
        if end is not None and at >= end:
            return None
        blocks = self._blocks.setdefault(lane, {})
        if at not in blocks:
            blocks[at] = self._ask(self._names, lane, at, True)
        try:
            return blocks[at].result()
        except BaseException:
            blocks.pop(at)  # so that the next call tries again
            raise

    def after(self, lane: int, at: int) -> int:
        return at + 1

    @property
    def most_empty(self) -> int:
        # a little more than two epochs of blocks
        grid = self._grid
        if grid.period < ENDLESS:
            return 64 + 2 * grid.per_epoch
        return 64 + 2 * (self._cycle // (grid.block * grid.lanes))

    def barren(self, lane: int, pieces: int, at: int) -> StreamEndError:
        failure = self._node.failure(self._here, lane, max(0, at - 1))
        error = StreamEndError(
            f"lane {lane} of {self._grid.lanes} gave no row in {pieces} blocks, more than two "
            f"epochs of them ({self._cycle} rows an epoch beneath): {self._why(lane, failure)}"
        )
        error.__cause__ = failure
        return error

    def _why(self, lane: int, failure: Exception | None) -> str:
        lanes, rows, what = self._grid.lanes, self._cycle, self._node.counter
        if failure is not None:
            return (
                'on_error("skip") leaves out rows that fail, and all of them do: '
                f"{type(failure).__name__}: {str(failure)[:200]}. Mend what fails."
            )
        if lanes == 1:
            return f"{what} and what stands on it drop all of them. Let some rows stay."
        if lanes > rows:
            return f"there are {lanes} lanes and {rows} rows: take fewer lanes."
        covered = ", ".join(
            f"{start}..{stop - 1}"
            for start, stop in (self._grid.bounds(lane, n) for n in range(min(4, self._shown)))
            if stop > start
        )
        held = f"the blocks of lane {lane} (rows {covered}{', …' if self._shown > 4 else ''})"
        if self._node.below.varies(values=False) is None:
            return (
                f"{held} hold none that stays, in any epoch, as rows are not shuffled. Put "
                f"shuffle() before {what}, so that each lane has its share, or take fewer lanes."
            )
        return (
            f"{held} hold none that stays: {what} keeps too few rows for {lanes} lanes. Take fewer."
        )

    @property
    def _shown(self) -> int:
        return self._grid.per_epoch if self._grid.period < ENDLESS else 1
