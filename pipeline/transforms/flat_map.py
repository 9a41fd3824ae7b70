"""Turns one row into many, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from pipeline.block import Block
from pipeline.errors import ChainError
from pipeline.transforms.calling import each, made_by
from pipeline.transforms.defaults import FunctionTransform
from pipeline.types import Site


@final
@dataclass(frozen=True)
class FlatMap(FunctionTransform):
    """All rows of `f(row)`, in order. Output j of a row has j as one more place in its provenance.

    f returns an iterable of rows, such as a list or generator.
    """

    block: int = 64
    kind = "flat_map"
    counted = True

    def apply(self, block: Block, site: Site) -> Block:
        """The outputs of all rows, end to end.

        Raises:
            ChainError: f returned one row rather than an iterable of rows, or an output is an
                iterator itself.
        """
        # outputs are made within the call: an error of a generator then names its row
        block, outputs = each(lambda row: _listed(self.f(row), site), block, site)
        counts = np.array([len(rows) for rows in outputs], np.int64)
        ends = np.cumsum(counts)
        inside = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
        origin = block.origin.take(np.repeat(np.arange(len(block)), counts)).deeper(inside)
        return made_by(site, [row for rows in outputs for row in rows], origin, block)


def _listed(rows: Any, site: Site) -> list[Any]:
    if isinstance(rows, str | bytes | dict) or not hasattr(rows, "__iter__"):
        raise ChainError(
            f"{site.stage} returned a {type(rows).__name__}, not an iterable of rows. "
            "Return [row] for one row, [] for none."
        )
    return list(rows)
