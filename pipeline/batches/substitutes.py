"""Which rows take the place of rows that are left out of an indexed dataset, by arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Block, Int64s, Origin
from pipeline.chain import Chain, as_order
from pipeline.checkpoint.position import Exclusion
from pipeline.errors import PositionError
from pipeline.mixes import Mix
from pipeline.provenance.exclusions import Exclusions
from pipeline.sampling.permutation import MOST, Permutation
from pipeline.sampling.repeat import Repeat
from pipeline.seeds import derive_seed
from pipeline.types import At

TRIES = 32
_WALK = 1 << 12  # rows looked at together where chance has found none
_KIN = 1 << 16  # rows looked at for one of the same dataset of a mix


class Substitutes:
    """Stream rows of an indexed dataset, those that are left out replaced by others.

    A substitute is drawn from the row's epoch, so that a file left out of an unshuffled dataset is
    not replaced by copies of its neighbour. In a mix it is drawn from the same component and that
    one's epoch, so that shares hold, and past rows stay what they were when weights change; unless
    hardly any of the component is left or dealt. One draw gives no two rows the same.

    Args:
        chain: whose rows they are.
        entries: which records are left out.
    """

    def __init__(self, chain: Chain, entries: Iterable[Exclusion]) -> None:
        self._chain = chain
        self._excluded = Exclusions(chain.root.components(()), entries)

    def rows(self, rows: Int64s, step: int) -> Int64s:
        """Stream rows of a step, those that are left out replaced: a function of each row alone.

        Raises:
            PositionError: nothing of the epoch is left.
        """
        chain, excluded = self._chain, self._excluded
        if not excluded.active(step) or not len(rows):
            return rows
        origin = _origin(chain, rows)
        bad = np.flatnonzero(excluded.among(origin, step))
        if not len(bad):
            return rows
        rows = rows.copy()
        rows[bad] = _relatives(chain, rows[bad], excluded, step)
        origin = _origin(chain, rows[bad])
        still = np.flatnonzero(excluded.among(origin, step))
        bad, origin = bad[still], origin.take(still)
        kin, firsts = _kin(chain, origin), _first(chain, rows[bad])
        for first in np.unique(firsts).tolist():
            here = firsts == first
            others = _Others(chain, first, excluded, step)
            rows[bad[here]] = others(rows[bad[here]], kin[here])
        return rows

    def block(
        self, rows: Int64s, block: Block, read: Callable[[Int64s], Block], step: int
    ) -> Block:
        """A block of rows, those that are left out replaced.

        A row that cannot be read is given as its neighbour, which may be left out.

        Args:
            rows: the stream rows that were asked for, none left out.
            block: what reading them gave.
            read: reads stream rows.
            step: at which step.

        Raises:
            PositionError: what can be read is left out, as far as chance finds.
        """
        if not self._chain.skips or not self._excluded.active(step):
            return block
        bad = np.flatnonzero(self._excluded.among(block.origin, step))
        for attempt in range(TRIES):
            if not len(bad):
                return block
            found = read(self.rows(_elsewhere(self._chain, rows[bad], attempt), step))
            places = np.arange(len(block))
            places[bad] = len(block) + np.arange(len(bad))
            block = Block.concat([block, found]).take(places)
            bad = bad[self._excluded.among(found.origin, step)]
        raise PositionError(
            f"step {step}: rows that fail have no others to stand for them, as nearly all that can "
            "be read is excluded: exclude fewer"
        )


def _elsewhere(chain: Chain, rows: Int64s, attempt: int) -> Int64s:
    firsts = _first(chain, rows)
    out = np.empty_like(rows)
    for first in np.unique(firsts).tolist():
        here, key = firsts == first, derive_seed(chain.seed, "stand in", first, attempt)
        out[here] = first + Permutation(_size(chain, first), key)(rows[here] - first)
    return out


def _first(chain: Chain, rows: Int64s) -> Int64s:
    # where the row's epoch begins; of an endless mix, where a run of so many rows does
    turn, index = np.divmod(rows, chain.length)
    period = min(chain.period, MOST)
    return turn * chain.length + index // period * period


def _size(chain: Chain, first: int) -> int:
    return min(chain.period, MOST, chain.length - first % chain.length)


def _origin(chain: Chain, rows: Int64s) -> Origin:
    return chain.origin(At.of_rows(rows, max(1, chain.length)))


def _kin(chain: Chain, origin: Origin) -> Int64s:
    # which dataset of a mix rows are of; all alike where there is none
    if not isinstance(chain.root, Mix):
        return np.zeros(len(origin), np.int64)
    names = [component.path[0] for component in chain.root.components(())]
    return np.unique(names, return_inverse=True)[1][origin.component].astype(np.int64)


def _relatives(chain: Chain, rows: Int64s, excluded: Exclusions, step: int) -> Int64s:
    # rows of a mix, those for which it is found soon replaced by others of their dataset's epoch:
    # drawn by what stands there, not by where it stands, which hangs on the weights to come
    mix = chain.root
    orders = [stage for stage in chain.stages if as_order(stage) is not None]
    if not isinstance(mix, Mix) or not all(isinstance(stage, Repeat) for stage in orders):
        return rows
    found, left = rows.copy(), np.arange(len(rows))
    for attempt in range(TRIES):
        found[left] = [_relative(chain, mix, row, attempt) for row in rows[left].tolist()]
        left = left[excluded.among(_origin(chain, found[left]), step)]
        if not len(left):
            return found
    found[left] = rows[left]
    return found


def _relative(chain: Chain, mix: Mix, row: int, attempt: int) -> int:
    # one draw; the row itself where what is drawn is not dealt in its pass
    n = mix.length()
    order, index = divmod(row, n)
    which, _ = mix.schedule.pattern.at(np.array([index]))
    name = mix.schedule.names[int(which[0])]
    part, given = mix.chains[name], mix.drawn(name, order, index, index + 1)[0]
    turn, place = divmod(given, part.length)
    first = turn * part.length + place // min(part.period, MOST) * min(part.period, MOST)
    size = min(part.period, MOST, part.length - first % part.length)
    permuted = Permutation(size, derive_seed(chain.seed, "exclude", name, first, attempt))
    there = mix.row(name, order, first + int(permuted(np.array([given - first]))[0]))
    return order * n + there if 0 <= there < n else row


class _Others:
    # rows of the epoch that begins at `first`
    def __init__(self, chain: Chain, first: int, excluded: Exclusions, step: int) -> None:
        self._chain, self._first, self._size = chain, first, _size(chain, first)
        self._excluded, self._step = excluded, step

    def __call__(self, rows: Int64s, kin: Int64s) -> Int64s:
        found, left = rows.copy(), np.arange(len(rows))
        for attempt in range(TRIES):
            found[left] = self._drawn(rows[left], attempt)
            left = left[~self._fit(found[left], kin[left])]
            if not len(left):
                return found
        starts = self._drawn(rows[left], 0)
        for i, start in zip(left.tolist(), starts.tolist(), strict=True):
            found[i] = self._next(start, int(kin[i]))
        return found

    def _drawn(self, rows: Int64s, attempt: int) -> Int64s:
        key = derive_seed(self._chain.seed, "exclude", self._first, attempt)
        return self._first + Permutation(self._size, key)(rows - self._first)

    def _fit(self, rows: Int64s, kin: Int64s | int | None) -> NDArray[np.bool_]:
        origin = _origin(self._chain, rows)
        good = ~self._excluded.among(origin, self._step)
        return good if kin is None else good & (_kin(self._chain, origin) == kin)

    def _next(self, row: int, kin: int) -> int:
        # the first that fits from a row on
        for alike, most in ((kin, min(_KIN, self._size)), (None, self._size)):
            for ahead in range(0, most, _WALK):
                other = np.arange(ahead, min(self._size, ahead + _WALK))
                candidates = self._first + (row - self._first + other) % self._size
                good = np.flatnonzero(self._fit(candidates, alike))
                if len(good):
                    return int(candidates[good[0]])
        raise PositionError(
            f"all {self._size} rows of an epoch are excluded from step {self._step} on: "
            "exclude fewer"
        )
