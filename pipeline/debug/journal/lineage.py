"""Which line of a ledger each line follows, and so which lines led to where the run stands.

A run that goes back writes on at the end of its ledger. What it had done from there on is given up,
unless the run later goes on from a checkpoint of it. A line names the line that it follows, if that
is not the one above it. In older journals its chain tells: it was made of that of the line before.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.debug.journal.digests import follows
from pipeline.debug.journal.line import Line


class Lines(Protocol):
    """What a lineage asks a ledger."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Line]: ...

    def at(self, number: int) -> Line: ...

    def of_step(self, step: int) -> list[Line]: ...

    def breaks(self) -> Sequence[int]: ...


def follows_above(line: Line, above: Line | None) -> bool:
    """Whether a line follows the one above it in the file, `above`, rather than an earlier one."""
    if above is None:
        return True
    if line.after is not None or line.step <= above.step:
        return False
    if not line.chain or (line.launch == above.launch and line.step == above.step + 1):
        return True
    return follows(above.chain, line.digest, line.chain)


class Lineage:
    """The lines that each line of a ledger follows.

    Args:
        lines: the ledger's. `breaks` are the numbers of those that do not follow the line above.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines, self._breaks = lines, lines.breaks()
        self._parents: dict[int, int] = {}
        for number in self._breaks:  # in their order: a parent may be found through earlier ones
            self._parents[number] = self._found(number)

    def parent(self, number: int) -> int:
        """The number of the line that a line follows; -1 if it follows none."""
        return self._parents.get(number, number - 1)

    def parents(self) -> NDArray[np.int64]:
        """int64[n]: of each line the number of the one that it follows; -1 if it follows none."""
        found = np.arange(-1, len(self._lines) - 1)
        for number, parent in self._parents.items():
            found[number] = parent
        return found

    def ancestor(self, number: int, step: int) -> int:
        """The nearest line with a step below `step` among a line and those before it; -1 if none.

        Args:
            number: of the line.
            step: above the one that is looked for.
        """
        while number >= 0:
            first = self._first(number)
            if self._lines.at(first).step < step:
                piece = range(first, number + 1)  # steps rise in it
                return first + bisect_left(piece, step, key=lambda n: self._lines.at(n).step) - 1
            number = self.parent(first)
        return -1

    @cached_property
    def ranges(self) -> list[range]:
        """The numbers of the lines that led to the last one, in pieces, in the order of steps."""
        found: list[range] = []
        number = len(self._lines) - 1
        while number >= 0:
            found.append(range(self._first(number), number + 1))
            number = self.parent(found[-1].start)
        return found[::-1]

    def leads_on(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[n]: which lines led to the last one."""
        if not self.ranges:
            return np.zeros(len(numbers), bool)
        starts, stops = (np.array(ends) for ends in zip(*map(_ends, self.ranges), strict=True))
        at = np.searchsorted(starts, numbers, side="right") - 1
        return (at >= 0) & (numbers < stops[np.maximum(at, 0)])

    def _first(self, number: int) -> int:
        # of the lines that follow one another down to this one
        at = bisect_right(self._breaks, number) - 1
        return self._breaks[at] if at >= 0 else 0

    def _found(self, number: int) -> int:
        line = self._lines.at(number)
        if _comes_after(line, None):
            return -1
        near = [x for x in self._lines.of_step(line.step - 1) if x.number < number]
        known = next((x for x in reversed(near) if _comes_after(line, x)), None)
        if known is None and (line.chain or line.after):  # steps were left out between the two
            for each in self._lines:
                if each.number >= number:
                    break
                if each.step < line.step and _comes_after(line, each):
                    known = each
        if known is not None:
            return known.number
        # no chain tells: the run is taken to have gone back along what it did last
        return self.ancestor(number - 1, line.step)


def _ends(numbers: range) -> tuple[int, int]:
    return numbers.start, numbers.stop


def _comes_after(line: Line, before: Line | None) -> bool:
    if line.after is not None:
        return line.after == (before.name if before else ())
    chain = before.chain if before else ""
    return bool(line.chain) and follows(chain, line.digest, line.chain)
