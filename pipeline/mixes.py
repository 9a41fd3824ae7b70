"""What datasets become when their rows are dealt by weight: indexed rows, or counted ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.block import Block, Int64s, Origin
from pipeline.chain import Chain, Path
from pipeline.errors import ChainError
from pipeline.roots import Joined
from pipeline.sampling.schedule import Given, Schedule
from pipeline.types import ENDLESS, At

STOPS = ("first", "all", "never")
TURNS = 1 << 32  # passes of a component in an endless mix: one that a slice repeats draws anew


class _Mixed(Joined):
    """Datasets by name, the weights they are dealt by, and when a pass ends."""

    kind = "mix"

    def __init__(self, chains: Mapping[str, Chain], schedule: Schedule, stop: str) -> None:
        super().__init__(chains)
        self.schedule, self.stop = schedule, stop

    def fingerprint(self) -> dict[str, str]:
        # components that are not dealt yet may come and go, so the root names none
        return {
            **super().fingerprint(),
            "root": f"mix stop={self.stop}",
            **self.schedule.fingerprint(),
        }

    @property
    def _live(self) -> dict[int, Chain]:
        chains = list(self.chains.values())
        return {c: chains[c] for c in self.schedule.live}


class Mix(_Mixed):
    """Indexed datasets dealt by weight: which row stands where is arithmetic."""

    def __init__(self, chains: Mapping[str, Chain], schedule: Schedule, stop: str) -> None:
        super().__init__(chains, schedule, stop)
        for c, chain in self._live.items():
            if not chain.length:
                raise ChainError(f"mix: dataset {schedule.names[c]!r} is empty: leave it out")
        self._length = self._rows()
        self._sizes = np.array([chain.length or 1 for chain in self.chains.values()])

    def length(self) -> int:
        return self._length

    def _rows(self) -> int:
        deal, live = self.schedule.pattern, self._live
        if self.stop == "never":
            return ENDLESS
        if self.stop == "first":
            return min(
                deal.find(c, x.length) if x.length < ENDLESS else ENDLESS for c, x in live.items()
            )
        return max(self._done(c) for c in live)

    def _done(self, component: int) -> int:
        # the row before which a component was passed through, or was dealt for the last time
        n, deal = list(self.chains.values())[component].length, self.schedule.pattern
        row = deal.find(component, n - 1) + 1 if n < ENDLESS else ENDLESS
        return min(row, deal.end(component))

    @property
    def cycle(self) -> int:
        """Rows after which each component was passed through once, where it comes to that."""
        return max(self._done(c) for c in self._live)

    def origin(self, at: At, path: Path) -> Origin:
        return self._gathered(*self._below(at), path, Chain.origin, Origin.concat)

    def read(self, at: At, path: Path) -> Block:
        return self._gathered(*self._below(at), path, Chain.read, Block.concat)

    def _below(self, at: At) -> tuple[Int64s, At]:
        # components go on from pass to pass; a pass drawn again in one order draws them anew
        which, rank = self.schedule.pattern.at(at.index)
        size = self._sizes[which]
        if self._length == ENDLESS:
            given, turns = rank, np.where(size < ENDLESS, TURNS, 2)
        else:
            each = self._each[which]
            given, turns = at.order * each + rank, -(-each // size) + 1
        order, index = np.divmod(given, size)
        return which, At(order + (at.epoch - at.order) * turns, order, index)

    def drawn(self, name: str, order: int, low: int, high: int) -> tuple[int, int]:
        """Rows `[first, last)` of a dataset, over its epochs, that stand at [low, high) here."""
        c, deal = self.schedule.names.index(name), self.schedule.pattern
        if not self.schedule.live or c not in self.schedule.live:
            return 0, 0
        before = order * int(self._each[c]) if self._length < ENDLESS else 0
        first, last = (before + int(deal.counts(row)[c]) for row in (low, high))
        return first, last

    def row(self, name: str, order: int, given: int) -> int:
        """Where a dataset's row, counted over its epochs, stands in one epoch's order."""
        c = self.schedule.names.index(name)
        before = order * int(self._each[c]) if self._length < ENDLESS else 0
        return self.schedule.pattern.find(c, given - before)

    @property
    def _each(self) -> Int64s:
        return self.schedule.pattern.counts(self._length)


class CountedMix(_Mixed):
    """Datasets of which some are counted: every lane deals the rows of its components' same lane.

    Raises:
        ChainError: a component has lanes of its own.
    """

    deals = True

    def __init__(self, chains: Mapping[str, Chain], schedule: Schedule, stop: str) -> None:
        super().__init__(chains, schedule, stop)
        for name, chain in chains.items():
            if chain.lanes > 1:
                raise ChainError(
                    f"mix: dataset {name!r} has .lanes({chain.lanes}), but a mix deals lanes as a "
                    "whole. Put .lanes(n) after the outermost mix."
                )

    def length(self) -> int:
        """Passes, not rows, which nobody knows: one, or ENDLESS if that one never ends."""
        ends = [chain.length < ENDLESS for chain in self._live.values()]
        ending = {"never": False, "first": any(ends), "all": all(ends)}[self.stop]
        return 1 if ending else ENDLESS

    def read(self, at: At, path: Path) -> Block:
        raise AssertionError("rows of a counted mix have no positions: lanes deal them")

    def origin(self, at: At, path: Path) -> Origin:
        raise AssertionError("rows of a counted mix have no positions: lanes deal them")


def mixed(chains: Mapping[str, Chain], weights: Given, stop: str) -> Mix | CountedMix:
    """Chains by name as one root.

    Raises:
        ChainError: names, weights or stop are not as they should be.
    """
    if stop not in STOPS:
        raise ChainError(f'mix(stop={stop!r}): choose "first", "all" or "never"')
    odd = [n for n in chains if not isinstance(n, str) or not n or set(n) & {".", "/"}]  # pyright: ignore[reportUnnecessaryIsInstance]
    odd += [n for n in ("stages", "schedule") if n in chains]  # so fingerprints call other things
    if odd:
        raise ChainError(
            f"mix: datasets are named {odd}: give other names, without '.' and '/', not 'stages' "
            "or 'schedule'"
        )
    schedule = Schedule.of(list(chains), weights)
    counted = any(chain.counted for chain in chains.values())
    return (CountedMix if counted else Mix)(chains, schedule, stop)
