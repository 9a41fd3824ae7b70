"""How the lanes of a plain chain are read: block after block, each begun before it is needed."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.block import Block
from pipeline.chain import Chain, Path
from pipeline.lanes.reader import Ask, Pending, Spot, check_numbers
from pipeline.sampling.cursor import Place

FAR = 256  # blocks of a lane that are asked for ahead at most


class BlockReader:
    """Lanes of a chain of one source, or of several indexed datasets: a place is (block, offset).

    Args:
        chain: what the blocks are of.
        ask: begins one.
        lanes: L; a component has those of the whole dataset.
        part: the names that lead to this chain in counted mixes.
    """

    arithmetic = True

    def __init__(self, chain: Chain, ask: Ask, lanes: int, part: Path = ()) -> None:
        self._chain, self._ask, self._part = chain, ask, part
        self._behind = 0 if part else 1  # of many components, kept blocks would be many
        self._cut = chain.cut(lanes)
        self._per_pass = self._cut.per_pass
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

    def pull(self, lane: int, place: Place, epoch: int, want: int) -> tuple[list[Block], Place]:
        number, offset = place
        end, parts, empty = self._end(epoch), list[Block](), 0
        while want and (end is None or number < end):
            block = self._get(lane, number)
            offset = min(offset, len(block))  # shorter than when saved, if a change was allowed
            part = block.slice(offset, min(offset + want, len(block)))
            want, offset = want - len(part), offset + len(part)
            empty = 0 if len(part) else empty + 1
            if len(part):
                parts.append(part)
            if offset == len(block):
                number, offset = number + 1, 0
            if empty > self._most:
                raise self._chain.barren(lane, empty, self._cut)
        return parts, (number, offset)

    def has(self, lane: int, place: Place, epoch: int, want: int) -> bool:
        (number, offset), end = place, self._end(epoch)
        want += offset
        while want > 0 and (end is None or number < end):
            want -= len(self._get(lane, number))
            number += 1
        return want <= 0

    @property
    def patience(self) -> int:
        return 1 + self._most // max(1, self._per_pass or 1)

    @property
    def cycle(self) -> int:
        return -(-self._chain.cycle // self._cut.lanes)

    @property
    def _most(self) -> int:
        return self._chain.patience(self._cut)

    def spots(self, lane: int, place: Place, epoch: int) -> Iterator[Spot]:
        yield Spot(self, lane, place[0], self._end(epoch))

    def begun(self, lane: int, number: int) -> int:
        blocks, n = self._blocks.get(lane, {}), number
        while n in blocks:
            n += 1
        return n - number

    def begin(self, lane: int, number: int) -> None:
        self._blocks.setdefault(lane, {})[number] = self._ask(self._part, lane, number, False)

    def keep(self, lane: int, place: Place) -> None:
        blocks, number = self._blocks.get(lane, {}), place[0]
        for n in [n for n in blocks if not number - self._behind <= n <= number + FAR]:
            blocks.pop(n).cancel()

    def forget(self) -> None:
        for blocks in self._blocks.values():
            for pending in blocks.values():
                pending.cancel()
        self._blocks.clear()

    def _end(self, epoch: int) -> int | None:
        return None if self._per_pass is None else (epoch + 1) * self._per_pass

    def _get(self, lane: int, number: int) -> Block:
        blocks = self._blocks.setdefault(lane, {})
        if number not in blocks:
            blocks[number] = self._ask(self._part, lane, number, True)
        try:
            return blocks[number].result()
        except BaseException:
            blocks.pop(number)  # asked again, it is tried again
            raise
