"""The node of a mix with streamed datasets: lane l deals the rows of each component's lane l.

A lane's place is (passes of the mix that ended, row in this pass, components). For each
component drawn from so far, `components` holds its pass, its pass when this pass of the mix began,
and its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.block import Block, Int64s
from pipeline.errors import ChainError, StreamEndError
from pipeline.nodes.faults import applied
from pipeline.nodes.mixed import SCHEDULE, Mixture
from pipeline.nodes.node import Frontiers, Node, numbered, written
from pipeline.nodes.scope import Path, Stage
from pipeline.nodes.streamed import Ask, Here, Reader, Spot, Streamed, check_numbers
from pipeline.nodes.units import Units
from pipeline.sampling.cursor import Lane, Parts, Place
from pipeline.sampling.repeat import Repeat
from pipeline.types import ENDLESS, Transform

if TYPE_CHECKING:
    from pipeline.nodes.blocks import Blocks


@dataclass(frozen=True, eq=False)
class LaneMix(Mixture, Streamed):
    """Datasets dealt by weight, at least one of them streamed, and row-wise transforms above.

    Attributes:
        repeats: the repeats of the mix itself.
        maps: row-wise transforms; a component's block passes them before its rows are dealt.

    Raises:
        ChainError: a component has lanes of its own.
    """

    repeats: tuple[Repeat, ...] = ()
    maps: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, part in self.parts.items():
            if part.lanes > 1:
                raise ChainError(
                    f"mix: dataset {name!r} has .lanes({part.lanes}), but a mix deals lanes as a "
                    "whole. Put .lanes(n) after the outermost mix."
                )

    @cached_property
    def length(self) -> int:
        """Passes, not rows, which nobody knows: ENDLESS if the first never ends."""
        length = 1 if self._passes_end else ENDLESS
        for repeat in self.repeats:
            length = repeat.length(length)
        return length

    @cached_property
    def _passes_end(self) -> bool:
        ends = [part.ends for part in self.live.values()]
        return {"never": False, "first": any(ends), "all": all(ends)}[self.stop]

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return (*self.repeats, *self.maps)

    def cut(self, n: int) -> Node:
        maps = self.maps[: max(0, n - len(self.repeats))]
        return replace(self, repeats=self.repeats[:n], maps=maps)

    def fingerprint(self) -> dict[str, str]:
        return {**super().fingerprint(), **numbered(self.stages)}

    def written(self, seed: int) -> list[str]:
        repeats = [f"  {repeat.written()}" for repeat in self.repeats]
        return [*super().written(seed), *repeats, *written(self.maps)]

    @cached_property
    def counting(self) -> str:
        name, part = next((n, p) for n, p in self.parts.items() if p.streamed)
        return f"mix (in it {part.counting} of dataset {name!r})"

    @property
    def late(self) -> bool:
        return any(part.late for part in self.parts.values())

    def transformed(self, transform: Transform) -> Streamed:
        if transform.counted:
            return Units(self, (transform,))
        return replace(self, maps=(*self.maps, transform))

    def repeated(self, repeat: Repeat) -> Streamed:
        return replace(self, repeats=(*self.repeats, repeat))

    def _inside(self, here: Here, name: str) -> Here:
        part, first = self.parts[name], self.firsts[name]

        def lift(block: Block) -> Block:
            block = self.relabelled(name, block)
            for i, transform in enumerate(self.maps, len(self.repeats)):
                block = applied(transform, i, block, here.scope)
            return here.lift(block)

        return Here(here.scope.inside(part, name), here.lanes, here.first + first, lift)

    def located(self, names: Path, here: Here) -> tuple[Blocks, Here]:
        return self.parts[names[0]].stream.located(names[1:], self._inside(here, names[0]))

    def reader(self, here: Here, ask: Ask) -> LaneMixReader:
        readers = {
            name: part.stream.reader(self._inside(here, name), ask)
            for name, part in self.parts.items()
        }
        return LaneMixReader(self, readers, here.lanes)

    def touched_lanes(self, places: Sequence[Lane], lanes: int, more: int, head: str) -> Frontiers:
        row = max((row for _, (_, row, _) in places), default=0) + more
        again = any(turns for _, (turns, _, _) in places)
        found: Frontiers = {}
        for name, part in self.parts.items():
            inside = [
                (lane, state[2])
                for lane, (_, _, parts) in places
                for known, state in parts
                if known == name
            ]
            found |= part.stream.touched_lanes(inside, lanes, more, f"{head}{name}.")
        # that a pass goes on or ends may be due to rows of a dataset that were not dealt yet
        through = self.stop == "all" and self._passes_end
        if again or (through and row):
            found = dict.fromkeys(found, ENDLESS)
        # and that it ended within `more` rows, to any later weights
        settled = again or (through and more)
        return {head + SCHEDULE: ENDLESS if settled else row * lanes, **found}


class _Part(NamedTuple):
    # a component's pass, its pass when the mix's pass began, and its place
    epoch: int
    since: int
    place: Place


@dataclass(frozen=True, slots=True)
class _Hand:
    # rows that were dealt: which component gave each, and what each gave
    which: Int64s
    blocks: list[Block]
    parts: dict[str, _Part]

    def rows(self) -> Block:
        """In the order in which they were dealt."""
        rows = Block.concat(self.blocks)
        order = np.argsort(self.which, kind="stable")
        if np.array_equal(order, np.arange(len(order))):
            return rows
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return rows.take(places)


class LaneMixReader:
    """Reads lanes of a mix: a lane takes rows of the same lane of each component, by the pattern.

    Args:
        node: the mix.
        readers: a reader for each component, by name.
        lanes: the number of lanes.
    """

    arithmetic = False

    def __init__(self, node: LaneMix, readers: Mapping[str, Reader], lanes: int) -> None:
        schedule = node.schedule
        self._lanes, self._passes, self._stop = lanes, node.length, node.stop
        self._pattern, self._live = schedule.pattern.in_lanes(lanes), schedule.live
        self._names, self._readers = schedule.names, dict(readers)
        self.endless = node.length == ENDLESS

    def start(self) -> Place:
        return 0, 0, Parts()

    def check(self, place: Place) -> None:
        turns, row, parts = place
        check_numbers(turns, row, count=2)
        if not isinstance(parts, Parts):
            raise TypeError(f"{parts!r} are no components")
        for name, (epoch, since, at) in parts:
            check_numbers(epoch, since, count=2)
            if name in self._readers:
                self._readers[name].check(at)

    def turn(self, place: Place, epoch: int) -> Place:
        return (epoch * self._passes, 0, Parts((n, (p[0], p[0], p[2])) for n, p in place[2]))

    def pull(
        self, lane: int, place: Place, epoch: int, want: int, *, across: bool = True
    ) -> tuple[list[Block], Place]:
        """As of every reader; not `across`, rows are of one pass of the mix."""
        blocks, empty = list[Block](), 0
        while want and not self.ended(place, epoch) and (across or not blocks):
            hand = self._deal(lane, place, want)
            turns, row, _ = place
            got = len(hand.which)
            place = turns, row + got, _packed(hand.parts)
            if got:
                blocks.append(hand.rows())
            want, empty = want - got, 0 if got else empty + 1
            if want:
                # rows that were asked for tell that the pass has ended, and so must the place
                place = self._next_pass(place)
            if empty > self.patience:
                raise self._barren(lane, "any dataset", empty)
        return blocks, place

    def has(self, lane: int, place: Place, epoch: int, want: int) -> bool:
        empty = 0
        while want > 0 and empty <= self.patience and not self.ended(place, epoch):
            hand = self._deal(lane, place, want)
            turns, row, _ = place
            want, empty = want - len(hand.which), 0 if len(hand.which) else empty + 1
            place = self._next_pass((turns, row + len(hand.which), _packed(hand.parts)))
        return want <= 0

    @property
    def patience(self) -> int:
        return max(self._reader(c).patience for c in self._live)

    @property
    def cycle(self) -> int:
        first = self._pattern.entries[-1][0]
        shares = enumerate(self._pattern.share(first))
        return first + max(int(self._reader(c).cycle / share) for c, share in shares if share)

    def spots(self, lane: int, place: Place, epoch: int) -> Iterator[Spot]:
        parts = _unpacked(place)
        for c, share in enumerate(self._pattern.share(place[1])):
            if share:
                part = self._part(parts, c)
                for spot in self._reader(c).spots(lane, part.place, part.epoch):
                    end = spot.end if self._stop == "first" else None
                    yield replace(spot, share=spot.share * share, end=end)

    def keep(self, lane: int, place: Place) -> None:
        for name, part in _unpacked(place).items():
            if name in self._readers:
                self._readers[name].keep(lane, part.place)

    def cancel(self) -> None:
        for reader in self._readers.values():
            reader.cancel()

    # ---- passes

    def ended(self, place: Place, epoch: int) -> bool:
        """Whether pass `epoch` ends at a place."""
        return not self.endless and place[0] >= (epoch + 1) * self._passes

    def _next_pass(self, place: Place) -> Place:
        turns, _, parts = place
        return turns + 1, 0, Parts((name, (p[0], p[0], p[2])) for name, p in parts)

    # ---- dealing

    def _deal(self, lane: int, place: Place, want: int) -> _Hand:
        # up to `want` rows of this pass of the mix; where it ends is known once they are drawn
        row, parts = place[1], _unpacked(place)
        which, rank = self._pattern.at(np.arange(row, row + want))
        hand, most = self._draw(lane, which, rank, parts), want
        if self._stop == "all":
            most = self._all_through(lane, row, want, parts, hand)
        most = min(most, len(hand.which))
        return hand if most == want else self._draw(lane, which[:most], rank[:most], parts)

    def _draw(self, lane: int, which: Int64s, rank: Int64s, parts: Mapping[str, _Part]) -> _Hand:
        # all rows of a component are pulled together; the hand stops where one ends the pass
        after, blocks, most = dict(parts), list[Block](), len(which)
        for c, count in enumerate(np.bincount(which).tolist()):
            if not count:
                continue
            here = np.flatnonzero(which == c)
            part = self._part(parts, c)
            fresh = rank[here[0]] == 0 and self._names[c] in parts
            found, after[self._names[c]] = self._give(lane, c, part, count, fresh)
            blocks += found
            got = sum(map(len, found))
            if got < count:
                most = min(most, int(here[got]))
        return _Hand(which[:most], blocks, after)

    def _give(
        self, lane: int, c: int, part: _Part, want: int, fresh: bool
    ) -> tuple[list[Block], _Part]:
        # rows of one component, passing on into its next epoch unless stop="first"; a component
        # that is fresh in this pass of the mix resumes where the last one left it
        reader, blocks, empty = self._reader(c), list[Block](), 0
        while True:
            epoch, since, place = part
            found, place = reader.pull(lane, place, epoch, want)
            got = sum(map(len, found))
            blocks, want, empty = blocks + found, want - got, 0 if got else empty + 1
            part = _Part(epoch, since, place)
            begun = not fresh or bool(blocks) or empty > 1
            if not want or (self._stop == "first" and begun):
                return blocks, part
            if empty > reader.patience:
                raise self._barren(lane, f"dataset {self._names[c]!r}", empty)
            anew = since if begun else epoch + 1
            part = _Part(epoch + 1, anew, reader.turn(place, epoch + 1))

    def _all_through(
        self, lane: int, row: int, want: int, parts: Mapping[str, _Part], hand: _Hand
    ) -> int:
        # how many of these rows come before every component has given a whole pass
        before, most = self._pattern.counts(row), 0
        for c in self._live:
            part, end = self._part(parts, c), self._pattern.end(c)
            if end <= row or part.epoch > part.since:
                continue
            if before[c] and not self._reader(c).has(lane, part.place, part.epoch, 1):
                continue
            most = max(most, min(end - row, self._through(lane, c, part, hand, want)))
            if most >= want:
                return want
        return most

    def _through(self, lane: int, c: int, part: _Part, hand: _Hand, want: int) -> int:
        # rows of the hand up to the last one of the component's pass; `want` + 1 if it goes on
        here = np.flatnonzero(hand.which == c)
        if not len(here):
            return want + 1
        reader, after = self._reader(c), hand.parts[self._names[c]]
        if after.epoch == after.since:
            more = reader.has(lane, after.place, after.epoch, 1)
            return want + 1 if more else int(here[-1]) + 1
        start = part.place if after.since == part.epoch else reader.turn(part.place, after.since)
        found, _ = reader.pull(lane, start, after.since, len(here))
        return int(here[max(1, sum(map(len, found))) - 1]) + 1

    def _part(self, parts: Mapping[str, _Part], c: int) -> _Part:
        known = parts.get(self._names[c])
        return _Part(0, 0, self._reader(c).start()) if known is None else known

    def _reader(self, c: int) -> Reader:
        return self._readers[self._names[c]]

    def _barren(self, lane: int, what: str, passes: int) -> StreamEndError:
        return StreamEndError(
            f"mix: lane {lane} of {self._lanes} got no row of {what} in {passes} passes over it: "
            "that lane's blocks hold none that stays. Put shuffle() before what filters it, so "
            "that each lane has its share, take fewer lanes, or let more rows stay."
        )


def _unpacked(place: Place) -> dict[str, _Part]:
    return {name: _Part(*part) for name, part in place[2]}


def _packed(parts: Mapping[str, _Part]) -> Parts:
    return Parts(sorted((name, tuple(part)) for name, part in parts.items()))
