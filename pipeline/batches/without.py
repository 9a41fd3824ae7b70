"""Lanes without their excluded rows: the next rows of the lane move up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.block import Block, Origin
from pipeline.errors import StreamEndError
from pipeline.nodes import Reader
from pipeline.provenance.exclusions import Exclusions
from pipeline.sampling.cursor import Place

EPOCHS = 4  # epochs of excluded rows in a row after which no other row is expected
LEAST = 1 << 10  # excluded rows in a row, at least, as shuffles and random filters differ by epoch
UNKNOWN = 1 << 48  # a cycle of so many rows is that of a mix which never ends
PATIENCE = 1 << 20  # excluded rows in a row, where a dataset of such a mix has not come yet
HELD = 1 << 12  # excluded rows in a row after which their blocks are not kept for another look


@dataclass(frozen=True, slots=True)
class Without:
    """A reader of lanes that passes over the rows which are excluded at a step.

    Attributes:
        reader: reads all rows.
        excluded: the excluded records.
        step: the step of the batch: exclusions that begin later are not in force.
    """

    reader: Reader
    excluded: Exclusions
    step: int

    def pull(self, lane: int, place: Place, epoch: int, want: int) -> tuple[list[Block], Place]:
        """As `Reader.pull`, without excluded rows.

        Raises:
            StreamEndError: all rows of some epochs are excluded.
        """
        good, stretch = list[Block](), _Stretch(place)
        while want:
            found, place = self.reader.pull(lane, place, epoch, want)
            for block in found:
                left = np.flatnonzero(~self.excluded.among(block.origin, self.step))
                good += [block.take(left)] if len(left) else []
                want -= len(left)
                if len(left):
                    stretch = _Stretch(place)
                else:
                    stretch.add(block.origin)
            if not found:
                break
            if stretch.rows and stretch.whole(self.reader, place, self.excluded.components):
                raise StreamEndError(
                    f"all of the last {stretch.rows} rows of lane {lane}, from {EPOCHS} epochs or "
                    f"more, hold excluded records ({self.excluded.named(self.step)}): exclude "
                    "fewer, from a state that was saved before."
                )
            if stretch.rows > HELD:
                self.reader.keep(lane, place)
        return good, place

    def has(self, lane: int, place: Place, epoch: int, want: int) -> bool:
        """As `Reader.has`, without excluded rows."""
        try:
            return sum(map(len, self.pull(lane, place, epoch, want)[0])) == want
        except StreamEndError:
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reader, name)


@dataclass(slots=True)
class _Stretch:
    # excluded rows that follow one another: from where on, how many, and from which epochs of each
    # component
    start: Place
    rows: int = 0
    epochs: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])

    def add(self, origin: Origin) -> None:
        self.rows += len(origin)
        for component in np.unique(origin.component).tolist():
            found = origin.epoch[origin.component == component]
            low, high = self.epochs.get(component, (int(found[0]), int(found[0])))
            self.epochs[component] = min(low, int(found.min())), max(high, int(found.max()))

    def whole(self, reader: Reader, place: Place, components: int) -> bool:
        # whether it reaches through `EPOCHS` epochs, so that what follows is excluded too
        finite = reader.cycle < UNKNOWN
        most: int | None = getattr(reader, "most_empty", None)
        if finite and reader.arithmetic and most is not None:
            # blocks say how far it reaches, whatever a filter dropped: twice as far as it may drop
            return place[0] - self.start[0] > EPOCHS // 2 * most
        # rows of a mix: all of its datasets must have come to their turn
        if any(high - low <= EPOCHS for low, high in self.epochs.values()):
            return False
        if finite:
            return self.rows > LEAST + EPOCHS * reader.cycle
        return self.rows > (LEAST if len(self.epochs) == components else PATIENCE)
