"""Selecting rows: a list of positions in epoch 0's order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import ChainError, PositionError
from pipeline.sampling.order import Order
from pipeline.types import ENDLESS, At, Site


@dataclass(frozen=True, eq=False)
class Select(Order):
    """The rows at `positions` of epoch 0's order beneath, in the order of the list.

    Attributes:
        positions: int64[m] in [0, n), in any order, repeats included.
    """

    positions: Int64s

    kind = "select"
    name = "select"
    pins = True
    pins_path = True
    sets_length = True

    def length(self, n: int) -> int:
        return len(self.positions)

    def resolve(self, at: At, n: int, site: Site) -> At:
        return At(at.epoch, np.zeros_like(at.order), self.positions[at.index])

    def touched(self, rows: int, n: int) -> int:
        """How many rows beneath the first `rows` above need; over n if an epoch is repeated."""
        if rows > len(self.positions) and n != ENDLESS:
            return n + 1
        return int(self.positions[:rows].max(initial=-1)) + 1

    def above(self, index: Int64s, order: int, n: int, site: Site) -> Int64s:
        """Positions of the rows `index` beneath; a row selected several times has several."""
        return np.flatnonzero(np.isin(self.positions, index)).astype(np.int64)

    def written(self) -> str:
        shown = ", ".join(map(str, self.positions[:5].tolist()))
        return f"[[{shown}{', …' if len(self.positions) > 5 else ''}]]"

    def fingerprint(self) -> str:
        content = self.positions.astype("<i8").tobytes()
        digest = hashlib.blake2b(content, digest_size=6).hexdigest()
        return f"select {len(self.positions)} positions {digest}"


def chosen(item: Any, n: int) -> Int64s:
    """The positions that an index array, list or boolean mask selects: int64[m] in [0, n).

    Args:
        item: integers in [-n, n), where negative ones count from the end; or n booleans.
        n: rows of the dataset.

    Raises:
        ChainError: it holds something else, has more than one axis, or is a masked array.
        PositionError: an integer is outside the range, or there are not n booleans.

    >>> chosen([3, -1, 0], 5).tolist(), chosen([True, False, True], 3).tolist()
    ([3, 4, 0], [0, 2])
    """
    if isinstance(item, np.ma.MaskedArray):
        raise ChainError("ds[...] got a masked array: give those that count, as a.compressed()")
    a = np.asarray(item) if len(item) else np.zeros(0, np.int64)
    mixed = isinstance(item, list) and a.dtype.kind in "iu" and bool in set(map(type, item))
    # ds[1, 2] arrives as a tuple, which NumPy's users take for two axes
    if isinstance(item, tuple) or mixed or a.ndim != 1 or a.dtype.kind not in "iub":
        shown = item if isinstance(item, tuple) or mixed else f"{a.dtype}{list(a.shape)}"
        raise ChainError(
            f"ds[...] takes a row, a slice, or a flat list or array of integers or booleans: got "
            f"{shown}. For several rows write ds[[0, 7]]."
        )
    if a.dtype.kind == "b":
        if len(a) != n:
            shown = "no end" if n == ENDLESS else f"{n} rows"
            raise PositionError(
                f"a mask of {len(a)} booleans, but the dataset has {shown}. Give one a row."
            )
        return np.flatnonzero(a)
    outside = (a >= n) | (a < (0 if n == ENDLESS else -n))
    if outside.any():
        raise PositionError(
            f"positions {a[outside][:5].tolist()} lie outside of 0..{n - 1}: the dataset has {n} "
            "rows. Choose among these."
        )
    a = a.astype(np.int64)
    return np.where(a < 0, a + n, a)
