"""Turns one row into many, or none."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any, cast, final

import numpy as np

from pipeline.block import Block
from pipeline.errors import ChainError
from pipeline.transforms.calling import Outputs, each, filled_again, made_by, watch
from pipeline.transforms.defaults import FunctionTransform
from pipeline.tree import ATOMS, fresh
from pipeline.types import Site

WATCHED = 8  # calls in a block whose outputs are watched: it takes as long as a short call


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
        left = [WATCHED]
        block, outputs = each(lambda row: _outputs(self.f(row), site, left), block, site)
        counts = np.array([len(rows) for rows in outputs], np.int64)
        ends = np.cumsum(counts)
        inside = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
        origin = block.origin.take(np.repeat(np.arange(len(block)), counts)).deeper(inside)
        return made_by(site, [row for rows in outputs for row in rows], origin, block)


def _outputs(rows: Any, site: Site, left: list[int]) -> Outputs:
    # `left` holds of how many further calls the outputs are watched
    if isinstance(rows, str | bytes | dict) or not hasattr(rows, "__iter__"):
        raise ChainError(
            f"{site.stage} returned a {type(rows).__name__}, not an iterable of rows. "
            "Return [row] for one row, [] for none."
        )
    if isinstance(rows, list | tuple | np.ndarray):
        return _apart(Outputs(cast(list[Any], rows)))
    # a generator may fill what it has yielded again for the next output
    if not left[0]:
        return _apart(Outputs(rows))
    rest = iter(rows)
    found = Outputs(islice(rest, 1))
    first = watch(found)
    found.extend(rest)
    if len(found) > 1:
        left[0] -= 1
        if first.changed:
            raise filled_again(site)
    return _apart(found)


def _apart(rows: Outputs) -> Outputs:
    # one object given several times becomes as many: a later stage may change each in place
    if len(rows) < 2 or len(seen := set(map(id, rows))) == len(rows):
        return rows
    if ATOMS.issuperset(map(type, rows)):
        return rows
    return Outputs(row if _first(seen, row) else fresh(row) for row in rows)


def _first(left: set[int], row: Any) -> bool:
    found = id(row) in left
    left.discard(id(row))
    return found
