"""The node of filters and packs above a mix of lanes: they work on units of dealt rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

from pipeline.block import Block
from pipeline.errors import StreamEndError
from pipeline.nodes.blocks import Blocks, Transforms
from pipeline.nodes.faults import anew
from pipeline.nodes.node import Frontiers
from pipeline.nodes.scope import Path
from pipeline.nodes.streamed import Ask, Here, PieceReader, Reader, Spot, Streamed, check_numbers
from pipeline.sampling.cursor import Lane, Place
from pipeline.sampling.repeat import Repeat


@dataclass(frozen=True, eq=False)
class Units(Transforms):
    """Units of consecutive dealt rows, each of which goes through the transforms.

    Attributes:
        below: the mix.
        transforms: the first one may change the number of rows, as a filter or pack does.
    """

    below: Streamed

    @property
    def late(self) -> bool:
        return True

    def repeated(self, repeat: Repeat) -> Streamed:
        return replace(self, below=self.below.repeated(repeat))

    def located(self, names: Path, here: Here) -> tuple[Blocks, Here]:
        return self.below.located(names, _beneath(here))

    def reader(self, here: Here, ask: Ask) -> UnitReader:
        return UnitReader(self, here, self.below.reader(_beneath(here), ask))

    def touched_lanes(self, places: Sequence[Lane], lanes: int, more: int, head: str) -> Frontiers:
        more += self.block if any(given for _, (_, given) in places) else 0
        beneath = [(lane, at) for lane, (at, _) in places]
        return self.below.touched_lanes(beneath, lanes, more, head)


def _beneath(here: Here) -> Here:
    # without `lift`: what the mixes above do comes after these stages
    return Here(here.scope, here.lanes, here.first)


@dataclass(frozen=True, slots=True)
class _Unit:
    # the rows that a unit became, and the mix's place after it
    block: Block
    after: Place


class _OfOnePass(Protocol):
    def ended(self, place: Place, epoch: int) -> bool: ...

    def pull(
        self, lane: int, place: Place, epoch: int, want: int, *, across: bool
    ) -> tuple[list[Block], Place]: ...


class UnitReader(PieceReader):
    """Reads lanes of units: a place is (the mix's place before the unit, its rows given so far).

    Args:
        node: the node of the units.
        here: where the node stands.
        below: reads the mix.
    """

    arithmetic = False

    def __init__(self, node: Units, here: Here, below: Reader) -> None:
        self._node, self._here, self._below = node, here, below
        self._mix = cast(_OfOnePass, below)
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

    @property
    def patience(self) -> int:
        return self.most_empty

    @property
    def cycle(self) -> int:
        return self._below.cycle

    def spots(self, lane: int, place: Place, epoch: int) -> Iterator[Spot]:
        return self._below.spots(lane, self._beneath(lane, place), epoch)

    def keep(self, lane: int, place: Place) -> None:
        units = self._units.get(lane, {})
        self._units[lane] = {at: unit for at, unit in units.items() if at == place[0]}
        self._below.keep(lane, self._beneath(lane, place))

    def cancel(self) -> None:
        self._units.clear()
        self._below.cancel()

    def _beneath(self, lane: int, place: Place) -> Place:
        # where the mix is read next: after the current unit, if that was read
        unit = self._units.get(lane, {}).get(place[0])
        return unit.after if unit else place[0]

    # ---- pieces

    def piece(self, lane: int, at: Place, epoch: int) -> Block | None:
        if self._mix.ended(at, epoch):
            return None  # where one pass ends the next one begins, whose unit may be known
        units = self._units.setdefault(lane, {})
        if at not in units:
            unit = self._unit(lambda: self._pulled(lane, at, epoch))
            if unit is None:
                return None
            units[at] = unit
        return units[at].block

    def _pulled(self, lane: int, at: Place, epoch: int) -> tuple[list[Block], Place]:
        return self._mix.pull(lane, at, epoch, self._node.block, across=False)

    def _unit(self, pull: Callable[[], tuple[list[Block], Place]]) -> _Unit | None:
        # a unit after the stages here, and then those of the mixes above; None at a pass's end
        here, pulled, after = self._here, *pull()
        if not pulled:
            return None

        def dealt() -> Block:
            return Block.concat(pulled or pull()[0])

        def change(block: Block) -> Block:
            try:
                return here.lift(self._node.through(block, here.scope))
            except BaseException:
                # functions may have changed rows in place, which the mix would give again
                self._below.cancel()
                pulled.clear()
                raise

        return _Unit(anew(dealt, change, 1 + len(self._node.transforms)), after)

    def after(self, lane: int, at: Place) -> Place:
        return self._units[lane][at].after

    def ended(self, lane: int, at: Place, epoch: int) -> Place:
        return self._pulled(lane, at, epoch)[1]

    @property
    def most_empty(self) -> int:
        return 64 + 2 * self.cycle // self._node.block

    def barren(self, lane: int, pieces: int, at: Place) -> StreamEndError:
        return StreamEndError(
            f"lane {lane} of {self._here.lanes} gave no row in {pieces} times {self._node.block} "
            "rows of the mix: do the stages above it drop everything?"
        )
