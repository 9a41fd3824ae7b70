"""Substitutes for excluded rows of an indexed dataset, chosen by arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Block, Int64s, Origin
from pipeline.checkpoint.position import Exclusion
from pipeline.errors import PositionError
from pipeline.nodes import Part
from pipeline.provenance.exclusions import Exclusions
from pipeline.sampling.permutation import MOST, Permutation
from pipeline.seeds import derive_seed
from pipeline.types import At

TRIES = 32
_WALK = 1 << 12  # rows looked at together, once TRIES random draws have failed
_KIN = 1 << 16  # rows looked at, at most, for one of the same dataset of a mix


class Substitutes:
    """Replaces excluded stream rows of an indexed dataset by substitutes.

    A substitute is drawn from the whole epoch of the row, so that an excluded file of an unshuffled
    dataset is not replaced by copies of the next one. In a mix it is drawn from the epoch of the
    same component, so that shares hold and past rows stay what they were when weights change;
    only if hardly any of the component is left or dealt, from another one. A draw is a
    permutation, which gives no two rows the same substitute.

    Args:
        part: the part at the top of the dataset.
        entries: the excluded records.
    """

    def __init__(self, part: Part, entries: Iterable[Exclusion]) -> None:
        self._part = part
        self._excluded = Exclusions(part.components, entries)

    def until(self, step: int) -> int | None:
        """The first later step from which other records are excluded; None if there is none."""
        return self._excluded.until(step)

    def rows(self, rows: Int64s, step: int) -> Int64s:
        """The stream rows of a step, excluded ones replaced. Each depends on its own row alone.

        Raises:
            PositionError: all rows of an epoch are excluded.
        """
        part, excluded = self._part, self._excluded
        if not excluded.active(step) or not len(rows):
            return rows
        origin = _origin(part, rows)
        bad = np.flatnonzero(excluded.among(origin, step))
        if not len(bad):
            return rows
        rows = rows.copy()
        rows[bad] = _relatives(part, rows[bad], excluded, step)
        origin = _origin(part, rows[bad])
        still = np.flatnonzero(excluded.among(origin, step))
        bad, origin = bad[still], origin.take(still)
        if len(bad):
            rows[bad] = _Others(part, excluded, step)(rows[bad], _kin(part, origin))
        return rows

    def block(
        self, rows: Int64s, block: Block, read: Callable[[Int64s], Block], step: int
    ) -> Block:
        """The block that was read, with excluded rows in it replaced.

        With on_error("skip"), a row that fails is read as its neighbour, which may be excluded.

        Args:
            rows: the stream rows that were asked for, none of them excluded.
            block: what reading them gave.
            read: reads stream rows.
            step: the step of the batch.

        Raises:
            PositionError: no draw gave a row that can be read and is not excluded.
        """
        if not self._part.skips or not self._excluded.active(step):
            return block
        bad = np.flatnonzero(self._excluded.among(block.origin, step))
        for attempt in range(TRIES):
            if not len(bad):
                return block
            found = read(self.rows(_elsewhere(self._part, rows[bad], attempt), step))
            places = np.arange(len(block))
            places[bad] = len(block) + np.arange(len(bad))
            block = Block.concat([block, found]).take(places)
            bad = bad[self._excluded.among(found.origin, step)]
        raise PositionError(
            f"step {step}: rows that fail have no others to stand for them, as nearly all that can "
            "be read is excluded: exclude fewer"
        )


def _elsewhere(part: Part, rows: Int64s, attempt: int) -> Int64s:
    return _drawn(part, rows, "stand in", attempt)


def _drawn(part: Part, rows: Int64s, name: str, attempt: int) -> Int64s:
    # for each row another one of its epoch
    firsts = _first(part, rows)
    epochs, which = np.unique(firsts, return_inverse=True)
    order = np.argsort(which, kind="stable")
    bounds = np.cumsum([0, *np.bincount(which)])
    out = np.empty_like(rows)
    for first, start, stop in zip(epochs.tolist(), bounds[:-1], bounds[1:], strict=True):
        here = order[start:stop]
        key = derive_seed(part.seed, name, first, attempt)
        out[here] = first + Permutation(_size(part, first), key)(rows[here] - first)
    return out


def _first(part: Part, rows: Int64s) -> Int64s:
    # the first row of the row's epoch or, in an endless mix, of its run of MOST rows
    turn, index = np.divmod(rows, part.length)
    period = min(part.period, MOST)
    return turn * part.length + index // period * period


def _size(part: Part, first: int) -> int:
    return min(part.period, MOST, part.length - first % part.length)


def _origin(part: Part, rows: Int64s) -> Origin:
    return part.origin(At.of_rows(rows, max(1, part.length)))


def _kin(part: Part, origin: Origin) -> Int64s:
    # the number of the mix's dataset that each row is of; 0 where there is no mix
    kin = part.node.kin(origin)
    return np.zeros(len(origin), np.int64) if kin is None else kin


def _relatives(part: Part, rows: Int64s, excluded: Exclusions, step: int) -> Int64s:
    # rows of a mix, replaced by others of their dataset's epoch; a row stays if TRIES draws fail
    found, left = rows.copy(), np.arange(len(rows))
    for attempt in range(TRIES):
        others = part.node.relatives(rows[left], part.seed, attempt)
        if others is None:
            return rows
        found[left] = others
        left = left[excluded.among(_origin(part, found[left]), step)]
        if not len(left):
            return found
    found[left] = rows[left]
    return found


class _Others:
    # finds substitutes among the other rows of each row's epoch; all rows are looked at together,
    # as an endless dataset of few rows has many epochs in a batch
    def __init__(self, part: Part, excluded: Exclusions, step: int) -> None:
        self._part, self._excluded, self._step = part, excluded, step

    def __call__(self, rows: Int64s, kin: Int64s) -> Int64s:
        found, left = rows.copy(), np.arange(len(rows))
        for attempt in range(TRIES):
            found[left] = _drawn(self._part, rows[left], "exclude", attempt)
            left = left[~self._fit(found[left], kin[left])]
            if not len(left):
                return found
        starts = _drawn(self._part, rows[left], "exclude", 0)
        for i, start in zip(left.tolist(), starts.tolist(), strict=True):
            found[i] = self._next(start, int(kin[i]))
        return found

    def _fit(self, rows: Int64s, kin: Int64s | int | None) -> NDArray[np.bool_]:
        origin = _origin(self._part, rows)
        good = ~self._excluded.among(origin, self._step)
        return good if kin is None else good & (_kin(self._part, origin) == kin)

    def _next(self, row: int, kin: int) -> int:
        # the first row from `row` on that fits: of the same dataset if one is near, else of any
        first = int(_first(self._part, np.array([row]))[0])
        size = _size(self._part, first)
        for alike, most in ((kin, min(_KIN, size)), (None, size)):
            for ahead in range(0, most, _WALK):
                other = np.arange(ahead, min(size, ahead + _WALK))
                candidates = first + (row - first + other) % size
                good = np.flatnonzero(self._fit(candidates, alike))
                if len(good):
                    return int(candidates[good[0]])
        raise PositionError(
            f"all {size} rows of an epoch are excluded from step {self._step} on: exclude fewer"
        )
