"""Lanes without their excluded rows: the next rows of the lane move up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.block import Block
from pipeline.errors import StreamEndError
from pipeline.nodes import Reader
from pipeline.provenance.exclusions import Exclusions
from pipeline.sampling.cursor import Place

PATIENCE = 1 << 20  # excluded rows in a row, beyond four epochs, after which the stream has ended


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
            StreamEndError: too many rows in a row are excluded.
        """
        good, passed = list[Block](), 0
        while want:
            found, place = self.reader.pull(lane, place, epoch, want)
            for block in found:
                left = np.flatnonzero(~self.excluded.among(block.origin, self.step))
                good += [block.take(left)] if len(left) else []
                want, passed = want - len(left), 0 if len(left) else passed + len(block)
            if not found:
                break
            if passed > PATIENCE + 4 * min(self.reader.cycle, 1 << 32):
                raise StreamEndError(
                    f"all of the last {passed} rows of lane {lane} are excluded: exclude fewer"
                )
        return good, place

    def has(self, lane: int, place: Place, epoch: int, want: int) -> bool:
        """As `Reader.has`, without excluded rows."""
        return sum(map(len, self.pull(lane, place, epoch, want)[0])) == want

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reader, name)
