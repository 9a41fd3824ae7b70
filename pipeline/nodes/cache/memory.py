"""Rows kept in this process's memory, by position."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Columns, Int64s, Values
from pipeline.tree import fresh, fresh_elements, leaves, map_leaves

_MOST_LAYOUTS = 100


class Memory:
    """Up to n rows. Columns stay columns; rows are copied on their way in and out.

    Args:
        n: how many positions there are.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._number = np.full(n, -1, np.int8)  # the layout of each position's row, or -1
        self._layouts: list[Any] = []
        self._kept: list[Columns | NDArray[Any]] = []
        self._lock = threading.Lock()

    def get(self, positions: Int64s) -> tuple[list[tuple[Int64s, Values]], Int64s]:
        number = self._number[positions]
        pieces: list[tuple[Int64s, Values]] = []
        for s in np.unique(number[number >= 0]).tolist():
            here = np.flatnonzero(number == s)
            pieces.append((here, _taken(self._kept[s], positions[here])))
        return pieces, np.flatnonzero(number < 0)

    def put(self, positions: Int64s, values: Values) -> Values:
        if not len(positions):
            return values
        with self._lock:
            s = self._layout_number(values)
            if s is None:
                return values
            kept = self._kept[s]
            if isinstance(kept, Columns) and isinstance(values, Columns):
                for (_, old), (_, new) in zip(leaves(kept.tree), leaves(values.tree), strict=True):
                    old[positions] = fresh_elements(new)
            elif isinstance(kept, np.ndarray) and isinstance(values, list):
                for position, row in zip(positions.tolist(), values, strict=True):
                    kept[position] = fresh(row)
            self._number[positions] = s  # last, as other threads read without the lock
        return values

    def _layout_number(self, values: Values) -> int | None:
        layout = _layout(values)
        if layout not in self._layouts:
            if len(self._layouts) == _MOST_LAYOUTS:
                return None
            self._kept.append(_empty(self._n, values))
            self._layouts.append(layout)
        return self._layouts.index(layout)


def _layout(values: Values) -> Any:
    if isinstance(values, Columns):
        shape = [(name, a.dtype, a.shape[1:]) for name, a in leaves(values.tree)]
        return shape, map_leaves(lambda _: None, values.tree)
    return None


def _empty(n: int, values: Values) -> Columns | NDArray[Any]:
    # pages of an array that are never written to take no memory
    if isinstance(values, Columns):
        return Columns(map_leaves(lambda a: np.empty((n, *a.shape[1:]), a.dtype), values.tree))
    return np.empty(n, object)


def _taken(kept: Columns | NDArray[Any], positions: Int64s) -> Values:
    if isinstance(kept, Columns):
        return Columns(map_leaves(fresh_elements, kept.read(positions).tree))
    return [fresh(kept[i]) for i in positions.tolist()]
