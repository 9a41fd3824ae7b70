"""The node of a mix of indexed datasets: arithmetic says which row stands where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pipeline.block import Int64s, Origin
from pipeline.errors import ChainError
from pipeline.nodes.joined import Joined, RowJoin, touched_parts
from pipeline.nodes.node import Frontiers, Span
from pipeline.nodes.scope import Scope
from pipeline.sampling.permutation import MOST, Permutation
from pipeline.sampling.repeat import epochs_between
from pipeline.sampling.schedule import Schedule
from pipeline.seeds import derive_seed
from pipeline.types import ENDLESS, At

if TYPE_CHECKING:
    from pipeline.nodes.part import Part

STOPS = ("first", "all", "never")
TURNS = 1 << 32  # passes of a component in an endless mix: one that a slice repeats draws anew
SCHEDULE = "schedule"


@dataclass(frozen=True, eq=False)
class Mixture(Joined):
    """What every mix has: named datasets, the weights they are dealt by, and when a pass ends.

    Attributes:
        schedule: the weights, and the row from which on each set of them applies.
        stop: "first", "all" or "never".
    """

    schedule: Schedule
    stop: str
    kind = "mix"

    def fingerprint(self) -> dict[str, str]:
        # components that are not dealt yet may come and go, so the root names none
        return {
            **super().fingerprint(),
            "root": f"mix stop={self.stop}",
            **self.schedule.fingerprint(),
        }

    def rule(self) -> str:
        return f"{self.schedule.written()}, stop={self.stop!r}, "

    @cached_property
    def mixture(self) -> tuple[str, Schedule] | None:
        return SCHEDULE, self.schedule

    @cached_property
    def live(self) -> dict[int, Part]:
        """The parts that are dealt at some row, by number."""
        parts = list(self.parts.values())
        return {c: parts[c] for c in self.schedule.live}


@dataclass(frozen=True, eq=False)
class Mixed(Mixture, RowJoin):
    """Indexed datasets dealt by weight."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for c, part in self.live.items():
            if not part.length:
                raise ChainError(f"mix: dataset {self.schedule.names[c]!r} is empty: leave it out")

    @cached_property
    def dealt(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return sum(part.node.dealt for part in self.live.values())

    @cached_property
    def length(self) -> int:
        deal = self.schedule.pattern
        if self.stop == "never":
            return ENDLESS
        if self.stop == "first":
            return min(
                deal.find(c, part.length) if part.length < ENDLESS else ENDLESS
                for c, part in self.live.items()
            )
        return max(self._done(c, part.length) for c, part in self.live.items())

    def _done(self, component: int, n: int) -> int:
        # the row before which a component gave n rows, or was dealt for the last time
        deal = self.schedule.pattern
        row = deal.find(component, n - 1) + 1 if n < ENDLESS else ENDLESS
        return min(row, deal.end(component))

    @cached_property
    def cycle(self) -> int:
        # of an endless one: the rows after which each component was passed through once
        if self.length < ENDLESS:
            return self.length
        return max(self._done(c, part.node.cycle) for c, part in self.live.items())

    @cached_property
    def _sizes(self) -> Int64s:
        return np.array([part.length or 1 for part in self.parts.values()])

    @cached_property
    def _each(self) -> Int64s:
        # rows of each component in a pass
        return self.schedule.pattern.counts(self.length)

    def locate(self, at: At) -> tuple[Int64s, At]:
        # components go on from pass to pass; a pass drawn again in one order draws them anew
        which, rank = self.schedule.pattern.at(at.index)
        size = self._sizes[which]
        if self.length == ENDLESS:
            given, turns = rank, np.where(size < ENDLESS, TURNS, 2)
        else:
            each = self._each[which]
            given, turns = at.order * each + rank, -(-each // size) + 1
        order, index = np.divmod(given, size)
        return which, At(order + (at.epoch - at.order) * turns, order, index)

    def varies(self, pinned: bool = False, values: bool = True) -> str | None:
        if not pinned:
            return "mix, whose datasets go on from pass to pass,"
        return super().varies(pinned, values)

    # ---- where rows stand

    def _drawn(self, c: int, order: int, low: int, high: int) -> tuple[int, int]:
        # rows [first, last) of a part, over its epochs, that stand at [low, high) here
        if c not in self.schedule.live:
            return 0, 0
        deal, before = self.schedule.pattern, self._before(c, order)
        return before + int(deal.counts(low)[c]), before + int(deal.counts(high)[c])

    def _row(self, c: int, order: int, given: int) -> int:
        # where a part's row, counted over its epochs, stands in one epoch's order
        return self.schedule.pattern.find(c, given - self._before(c, order))

    def _before(self, c: int, order: int) -> int:
        return order * int(self._each[c]) if self.length < ENDLESS else 0

    def _positions(
        self, spans: list[Span], order: int, low: int, high: int, scope: Scope
    ) -> Int64s:
        found: list[int] = []
        for c, (name, part) in enumerate(self.parts.items()):
            first, last = self._drawn(c, order, low, high)
            inside = scope.inside(part, name)
            head = "/".join(inside.path)
            if first == last or not any(s[0] == head or s[0].startswith(head + "/") for s in spans):
                continue
            for turn in epochs_between(first, last, part.length):
                begin = turn * part.length
                ends = max(0, first - begin), min(part.length, last - begin)
                index = part.node.positions(spans, turn, *ends, inside)
                drawn = index[(index >= ends[0]) & (index < ends[1])] + begin
                found += [self._row(c, order, given) for given in drawn.tolist()]
        return np.array(found, np.int64)

    def touched(self, rows: int, head: str) -> Frontiers:
        inside = rows < self.length
        given = self.schedule.pattern.counts(rows if inside else self.length)
        given = given * (1 if inside else -(-rows // self.length) + 1)
        parts = dict(zip(self.parts, given.tolist(), strict=True))
        own = {head + SCHEDULE: rows if inside else ENDLESS}
        return own | touched_parts(self.parts, parts, head)

    def sized(self, head: str) -> Frontiers:
        if self.length == ENDLESS:
            return {}
        return {head + SCHEDULE: ENDLESS} | super().sized(head)

    # ---- substitutes of excluded rows

    def kin(self, origin: Origin) -> Int64s | None:
        # in the order of names: seeds of substitutes depend on it
        names = [component.path[0] for component in self.components(())]
        return np.unique(names, return_inverse=True)[1][origin.component].astype(np.int64)

    def relatives(self, rows: Int64s, seed: int, attempt: int) -> Int64s | None:
        found = [self._relative(row, seed, attempt) for row in rows.tolist()]
        return np.array(found, np.int64)

    def _relative(self, row: int, seed: int, attempt: int) -> int:
        order, index = divmod(row, self.length)
        which, _ = self.schedule.pattern.at(np.array([index]))
        c = int(which[0])
        name, part = self.schedule.names[c], self.live[c]
        given = self._drawn(c, order, index, index + 1)[0]
        turn, place = divmod(given, part.length)
        most = min(part.period, MOST)
        first = turn * part.length + place // most * most
        size = min(most, part.length - first % part.length)
        permuted = Permutation(size, derive_seed(seed, "exclude", name, first, attempt))
        drawn = first + int(permuted(np.array([given - first]))[0])
        if drawn < self._before(c, order):
            return row  # an earlier pass of the mix gave it
        there = self._row(c, order, drawn)
        return order * self.length + there if there < self.length else row


def check_names(parts: Mapping[str, Part]) -> None:
    """Raises ChainError if the names of a mix's datasets would not do as names of anything."""
    odd = [n for n in parts if not isinstance(n, str) or not n or set(n) & {".", "/"}]  # pyright: ignore[reportUnnecessaryIsInstance]
    odd += [n for n in ("stages", SCHEDULE) if n in parts]  # so fingerprints call other things
    if odd:
        raise ChainError(
            f"mix: datasets are named {odd}: give other names, without '.' and '/', not 'stages' "
            "or 'schedule'"
        )
