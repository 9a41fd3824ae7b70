"""Rows copied into columns as they come, so that none is kept until its batch is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Columns
from pipeline.checks import numeric
from pipeline.errors import CollateError
from pipeline.transforms.collate import Empty, Look, collate
from pipeline.tree import children, leaves, map_leaves

FIRST = 16  # rows of the first piece, which tells how many bytes they have
PIECE = 1 << 19  # bytes of rows that are kept before they are copied: they stay in the CPU's caches
LARGE = 1 << 12  # bytes of a row from which on each is copied alone: that costs 1 µs

Put = Callable[[int, Any], bool]  # a row into its place; whether it fits there


class Stack:
    """Rows copied into columns, sized by the first piece: later ones a piece or a row at a time.

    A row that is copied and dropped at once leaves its memory, which the CPU's caches hold, to the
    next. Rows that do not fit into columns are kept as they are.

    Args:
        n: how many there will be.
        empty: makes the columns.
        first: rows of the first piece.
    """

    def __init__(self, n: int, empty: Empty, first: int = FIRST) -> None:
        self._n, self._empty, self._done, self._size = n, empty, 0, first
        self._columns: Any = None
        self._leaves: list[NDArray[Any]] = []
        self._structure: Any = None
        self._kept: list[Any] | None = None
        self._put: Put | None = None

    def spans(self) -> Iterator[tuple[int, int]]:
        """Rows of the next piece: a few, then as many as take PIECE bytes."""
        while self._done < self._n:
            yield self._done, min(self._n, self._done + self._size)

    def add(self, rows: list[Any], look: Look) -> None:
        """The rows of the next piece."""
        if self._kept is None and not self._copied(rows, look):
            done = self._done
            self._kept = Columns.of(self._columns, done).slice(0, done).rows() if done else []
            self._size = self._n
        if self._kept is not None:
            self._kept += rows
        self._done += len(rows)

    @property
    def put(self) -> Put | None:
        """Copies row i, once the first piece has shown that rows are large; None otherwise.

        All rows from the next piece on are put, in order; then comes `finish`.
        """
        return self._put if self._kept is None else None

    @property
    def first(self) -> int:
        """How many rows the next work's first piece shall have."""
        if self._columns is None or self._kept is not None:
            return FIRST
        return self._size if self._put is None else 2  # `called` compares one row with the next

    def finish(self) -> None:
        """All rows that were left have been `put`."""
        self._done = self._n

    def values(self) -> Columns | list[Any]:
        """All rows."""
        return Columns.of(self._columns, self._n, own=True) if self._kept is None else self._kept

    def _copied(self, rows: list[Any], look: Look) -> bool:
        # whether the rows lie in the columns now
        start, stop = self._done, self._done + len(rows)
        whole = len(rows) == self._n
        views = [column[start:stop] for column in self._leaves]
        places = _Places([view for view in views if view.ndim > 1])
        try:
            straight = whole and self._size > FIRST  # earlier works showed that rows are small
            into = self._empty if straight else places
            tree = collate(rows, empty=into, look=look, strict=True)
        except CollateError:
            return False
        found = [a for _, a in leaves(tree)]
        if self._columns is None:
            if not found or any(a.dtype.hasobject for a in found):
                return False
            nbytes = max(1, sum(a.nbytes for a in found)) / len(rows)
            self._size = max(1, int(PIECE / nbytes))
            if whole and nbytes < LARGE:
                self._columns = tree
                return True
            made = [self._empty((self._n, *a.shape[1:]), a.dtype) for a in found]
            columns = iter(made)
            whole_tree = map_leaves(lambda _: next(columns), tree)
            if any(a is not b for a, (_, b) in zip(made, leaves(whole_tree), strict=True)):
                return False  # fields that are properties may give other arrays than they are given
            self._leaves, self._columns = made, whole_tree
            self._structure = _structure(tree)
            self._put = _putting(rows[0], self._columns) if nbytes >= LARGE else None
            views = [column[start:stop] for column in self._leaves]
        if self._structure != _structure(tree):
            return False
        # each fits, and none lies in the place of another one
        fit = [
            a is view or (a.shape == view.shape and a.dtype == view.dtype and not places.gave(a))
            for view, a in zip(views, found, strict=True)
        ]
        if not all(fit):
            return False
        for view, a in zip(views, found, strict=True):
            if a is not view:
                view[...] = a
        return True


class _Places:
    # where arrays of a piece are written to, in the order of leaves: their places in the columns
    def __init__(self, views: list[NDArray[Any]]) -> None:
        self._views, self._given = iter(views), set[int]()

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        view = next(self._views, None) if len(shape) > 1 else None
        if view is None or view.shape != shape or view.dtype != dtype:
            return np.empty(shape, dtype)
        self._given.add(id(view))
        return view

    def gave(self, a: NDArray[Any]) -> bool:
        return id(a) in self._given


def _putting(row: Any, columns: Any) -> Put | None:
    # copies rows like this one into columns; None where only `collate` knows how
    kind, parts = type(row), children(row)
    if parts is None:
        return _putting_leaf(row, columns)
    below = [
        _putting(part, column)
        for (_, part), (_, column) in zip(parts, children(columns) or (), strict=True)
    ]
    each = [put for put in below if put is not None]
    if len(each) < len(below) or kind not in (dict, tuple):
        return None
    keys = list(row) if kind is dict else list(range(len(row)))
    puts = list(zip(keys, each, strict=True))

    def put(i: int, row: Any) -> bool:
        if type(row) is not kind or (list(row) != keys if kind is dict else len(row) != len(keys)):
            return False
        for key, into in puts:  # noqa: SIM110  (`all` of a generator costs half a microsecond)
            if not into(i, row[key]):
                return False
        return True

    return put


def _putting_leaf(leaf: Any, column: NDArray[Any]) -> Put | None:
    kind, dtype, shape = type(leaf), column.dtype, column.shape[1:]

    def put_array(i: int, leaf: Any) -> bool:
        if type(leaf) is not np.ndarray or leaf.shape != shape or leaf.dtype != dtype:
            return False
        column[i] = leaf
        return True

    def put_number(i: int, leaf: Any) -> bool:
        if type(leaf) is not kind:
            return False
        try:
            column[i] = leaf
        except OverflowError:
            return False
        return True

    if kind is np.ndarray:
        return put_array if shape else None
    # datetime64 and void are of one type whatever their dtype
    plain = kind in (bool, int, float) or (issubclass(kind, np.generic) and numeric(dtype))
    return put_number if plain and not shape else None


def _structure(tree: Any) -> Any:
    parts = children(tree)
    return None if parts is None else (type(tree), [(k, _structure(part)) for k, part in parts])
