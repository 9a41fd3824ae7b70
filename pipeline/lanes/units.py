"""How lanes are read where stages count rows above a counted mix: so many dealt rows at a time.

A place is (the mix's place before the rows, how many of what came of them were given).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.block import Block
from pipeline.errors import StreamEndError
from pipeline.lanes.dealt import DealtReader
from pipeline.lanes.parts import Trail, lifted
from pipeline.lanes.reader import Spot, check_numbers
from pipeline.sampling.cursor import Place


@dataclass(frozen=True, slots=True)
class _Unit:
    # what came of some rows of the mix; None where its pass holds none
    block: Block | None
    after: Place


class UnitReader:
    """Lanes of a chain on a counted mix whose stages count rows.

    Args:
        steps: the chain, last, and those above it.
        below: reads the mix.
        lanes: L.
    """

    arithmetic = False

    def __init__(self, steps: Trail, below: DealtReader, lanes: int) -> None:
        self._steps, self._below, self._lanes = steps, below, lanes
        self._chain, self._path = steps[-1]
        self.size = self._chain.block
        self.endless = below.endless
        self._units: dict[int, dict[Place, _Unit]] = {}

    def start(self) -> Place:
        return self._below.start(), 0

    def check(self, place: Place) -> None:
        at, offset = place
        check_numbers(offset, count=1)
        self._below.check(at)

    def turn(self, place: Place, epoch: int) -> Place:
        return self._below.turn(place[0], epoch), 0

    def pull(self, lane: int, place: Place, epoch: int, want: int) -> tuple[list[Block], Place]:
        at, offset = place
        parts, empty = list[Block](), 0
        while want:
            unit = self._unit(lane, at, epoch)
            if unit.block is None:
                break
            offset = min(offset, len(unit.block))
            part = unit.block.slice(offset, min(offset + want, len(unit.block)))
            want, offset = want - len(part), offset + len(part)
            empty = 0 if len(part) else empty + 1
            if len(part):
                parts.append(part)
            if offset == len(unit.block):
                at, offset = unit.after, 0
            if empty > self.patience:
                raise self._barren(lane, empty)
        return parts, (at, offset)

    def has(self, lane: int, place: Place, epoch: int, want: int) -> bool:
        at, offset = place
        want += offset
        while want > 0 and (unit := self._unit(lane, at, epoch)).block is not None:
            want, at = want - len(unit.block), unit.after
        return want <= 0

    @property
    def patience(self) -> int:
        return 64 + 2 * self.cycle // self.size

    @property
    def cycle(self) -> int:
        return self._below.cycle

    def spots(self, lane: int, place: Place, epoch: int) -> Iterator[Spot]:
        return self._below.spots(lane, self._beneath(lane, place), epoch)

    def keep(self, lane: int, place: Place) -> None:
        units = self._units.get(lane, {})
        self._units[lane] = {at: unit for at, unit in units.items() if at == place[0]}
        self._below.keep(lane, self._beneath(lane, place))

    def forget(self) -> None:
        self._units.clear()
        self._below.forget()

    def _beneath(self, lane: int, place: Place) -> Place:
        # where the mix is read next
        unit = self._units.get(lane, {}).get(place[0])
        return unit.after if unit else place[0]

    def _unit(self, lane: int, at: Place, epoch: int) -> _Unit:
        units = self._units.setdefault(lane, {})
        if at not in units:
            parts, after = self._below.pull(lane, at, epoch, self.size, across=False)
            units[at] = _Unit(self._evaluated(Block.concat(parts)) if parts else None, after)
        return units[at]

    def _evaluated(self, block: Block) -> Block:
        stages = slice(self._chain.unit, None)
        return lifted(self._steps, self._chain.apply(block, stages, self._path))

    def _barren(self, lane: int, units: int) -> StreamEndError:
        return StreamEndError(
            f"lane {lane} of {self._lanes} gave no row in {units} times {self.size} rows of the "
            "mix: do the stages above it drop everything?"
        )
