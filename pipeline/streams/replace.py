"""What stands for excluded rows of an indexed dataset: others of their epoch, by arithmetic."""

from __future__ import annotations

import numpy as np

from pipeline.block import Int64s
from pipeline.chain import Chain
from pipeline.errors import PositionError
from pipeline.exclusions import Exclusions
from pipeline.sampling.permutation import MOST, Permutation
from pipeline.seeds import derive_seed
from pipeline.types import At

TRIES = 32
_WALK = 1 << 12  # rows looked at together where chance has found none


def replaced(chain: Chain, rows: Int64s, excluded: Exclusions, step: int) -> Int64s:
    """Stream rows, those that are excluded at a step replaced: a function of each row alone.

    What replaces is drawn from the row's epoch, so that a file left out of an unshuffled dataset
    is not replaced by copies of its neighbour. One draw gives no two rows the same.

    Raises:
        PositionError: nothing of the epoch is left.
    """
    if not excluded.begin(step) or not len(rows):
        return rows
    rows = rows.copy()
    bad = np.flatnonzero(_bad(chain, rows, excluded, step))
    firsts = _first(chain, rows[bad])
    for first in np.unique(firsts).tolist():
        here = bad[firsts == first]
        rows[here] = _others(chain, rows[here], first, excluded, step)
    return rows


def _first(chain: Chain, rows: Int64s) -> Int64s:
    # where the row's epoch begins; of an endless mix, where a run of so many rows does
    turn, index = np.divmod(rows, chain.length)
    period = min(chain.period, MOST)
    return turn * chain.length + index // period * period


def _others(chain: Chain, rows: Int64s, first: int, excluded: Exclusions, step: int) -> Int64s:
    size = min(chain.period, MOST, chain.length - first % chain.length)
    found, left = rows.copy(), np.arange(len(rows))
    for attempt in range(TRIES):
        key = derive_seed(chain.seed, "exclude", first, attempt)
        found[left] = first + Permutation(size, key)(rows[left] - first)
        left = left[_bad(chain, found[left], excluded, step)]
        if not len(left):
            return found
    for i in left.tolist():
        found[i] = _next(chain, int(rows[i]), first, size, excluded, step)
    return found


def _next(chain: Chain, row: int, first: int, size: int, excluded: Exclusions, step: int) -> int:
    for ahead in range(1, size, _WALK):
        other = np.arange(ahead, min(size, ahead + _WALK))
        candidates = first + (row - first + other) % size
        good = np.flatnonzero(~_bad(chain, candidates, excluded, step))
        if len(good):
            return int(candidates[good[0]])
    raise PositionError(
        f"all {size} rows of an epoch are excluded from step {step} on: exclude fewer"
    )


def _bad(chain: Chain, rows: Int64s, excluded: Exclusions, step: int) -> np.ndarray:
    return excluded.among(chain.origin(At.of_rows(rows, max(1, chain.length))), step)
