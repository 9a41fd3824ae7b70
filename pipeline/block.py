"""Rows in flight: as columns or as lists, each row with its provenance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks import shown
from pipeline.errors import ChainError
from pipeline.tree import leaves, map_leaves

Int64s = NDArray[np.int64]


class Columns:
    """n rows laid out as columns: a pytree of arrays that share their leading axis; also a source.

    Args:
        tree: arrays `[n, ...]` in dicts, tuples, namedtuples, dataclasses, nested, or one array.
        length: n, for a tree without arrays (of rows such as `{}`), which does not show it.

    Raises:
        ChainError: leading axes differ, or there is neither an array nor a length.

    >>> c = Columns({"x": np.arange(3), "y": np.zeros((3, 2))})
    >>> len(c), c.read(np.array([2, 0])).tree["x"].tolist(), c.row(1)["x"]
    (3, [2, 0], np.int64(1))
    """

    __slots__ = ("_n", "_plain", "own", "tree")

    def __init__(self, tree: Any, length: int | None = None) -> None:
        self.tree = map_leaves(_as_column, tree)
        sizes = {name: _length(name, leaf) for name, leaf in leaves(self.tree)}
        lengths = set(sizes.values())
        if length is not None and not lengths:
            lengths = {length}
        if len(lengths) != 1:
            raise ChainError(
                f"columns need one common length, at least one column: got lengths {shown(sizes)}"
            )
        self._n: int = lengths.pop()
        self._plain: bool | None = None
        self.own = False

    @staticmethod
    def of(tree: Any, n: int, own: bool = False) -> Columns:
        """Columns of a tree that is known to consist of arrays of n rows; nothing is checked.

        Args:
            tree, n: the columns, and how many rows they have.
            own: whether nobody else refers to the arrays, so that they may become a batch.
        """
        columns = object.__new__(Columns)
        columns.tree, columns._n, columns._plain, columns.own = tree, n, None, own
        return columns

    def __len__(self) -> int:
        return self._n

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name or 'value'}: {a.dtype}{list(a.shape)}" for name, a in leaves(self.tree)
        )
        return f"Columns({shown})"

    def read(self, indices: Int64s) -> Columns:
        """Rows by index, copied; repeats and any order are fine."""
        return Columns.of(map_leaves(lambda a: a[indices], self.tree), len(indices))

    def slice(self, start: int, stop: int) -> Columns:
        """Rows `[start, stop)` as views."""
        tree = map_leaves(lambda a: a[start:stop], self.tree)
        return Columns.of(tree, len(range(self._n)[start:stop]))

    @property
    def plain(self) -> bool:
        """Whether these are arrays of NumPy's own numbers in nested dicts, as nearly always."""
        if self._plain is None:
            self._plain = _is_plain(self.tree)
        return self._plain

    def each(self, f: Callable[[NDArray[Any]], Any], length: int | None = None) -> Columns:
        """The columns after `f` was applied to each; give the new length where that changes."""
        return Columns(map_leaves(f, self.tree), self._n if length is None else length)

    def row(self, i: int) -> Any:
        """One row, its leaves NumPy scalars or arrays."""
        return map_leaves(lambda a: a[i], self.tree)

    def rows(self) -> list[Any]:
        """All rows, one Python object each."""
        return [self.row(i) for i in range(self._n)]


def _length(name: str, column: NDArray[Any]) -> int:
    if column.ndim == 0:
        which = f"the column {name!r}" if name else "a column"
        raise ChainError(
            f"{which} needs a leading axis of rows, got the scalar {shown(column.item())}"
        )
    return len(column)


def _is_plain(tree: Any) -> bool:
    if type(tree) is dict:
        return all(map(_is_plain, tree.values()))
    return type(tree) is np.ndarray and tree.dtype.isbuiltin == 1 and not tree.dtype.hasobject


def _as_column(leaf: Any) -> NDArray[Any]:
    # memory maps are pickled by path, and masks are refused where columns are used; of a matrix,
    # joined columns would be arrays but single ones matrices
    known = type(leaf) is np.ndarray or isinstance(leaf, np.memmap | np.ma.MaskedArray)
    a = leaf if known else np.asarray(leaf)
    if a.dtype.kind in "SU":  # fixed-width strings strip zero bytes
        a = np.array(leaf, dtype=object)
    return a


Values = Columns | list[Any]


@dataclass(frozen=True, slots=True)
class Segments:
    """The m segments that fill n packed rows, each a span of tokens of a row beneath.

    Attributes:
        bounds: int64[n + 1], rising from 0 to m: row i holds segments `bounds[i]:bounds[i + 1]`.
        origin: for each segment, the provenance of the row that it was cut from.
        start, stop: int64[m], the token span of each segment within that row.
    """

    bounds: Int64s
    origin: Origin
    start: Int64s
    stop: Int64s

    def take(self, indices: Int64s) -> Segments:
        counts = np.diff(self.bounds)[indices]
        bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        inside = np.arange(bounds[-1]) - np.repeat(bounds[:-1], counts)
        chosen = np.repeat(self.bounds[indices], counts) + inside
        return Segments(bounds, self.origin.take(chosen), self.start[chosen], self.stop[chosen])

    def slice(self, start: int, stop: int) -> Segments:
        """The segments of rows `[start, stop)`, as views."""
        start, stop, _ = slice(start, stop).indices(len(self.bounds) - 1)
        bounds = self.bounds[start : max(start, stop) + 1]
        first, last = int(bounds[0]), int(bounds[-1])
        origin, inside = self.origin.slice(first, last), slice(first, last)
        return Segments(bounds - first, origin, self.start[inside], self.stop[inside])

    @staticmethod
    def concat(parts: Sequence[Segments]) -> Segments:
        counts = np.concatenate([np.diff(p.bounds) for p in parts])
        return Segments(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            Origin.concat([p.origin for p in parts]),
            np.concatenate([p.start for p in parts]),
            np.concatenate([p.stop for p in parts]),
        )

    @staticmethod
    def both(one: Segments | None, other: Segments) -> Segments:
        """For each row, its segments in `one` followed by those in `other`."""
        if one is None:
            return other
        n = len(one.bounds) - 1
        every = Segments.concat([one, other]).take(np.arange(2 * n).reshape(2, n).T.ravel())
        return replace(every, bounds=every.bounds[::2])

    @staticmethod
    def none(n: int) -> Segments:
        """n rows without segments, as unpacked rows are when joined to packed ones."""
        empty = np.zeros(0, np.int64)
        return Segments(np.zeros(n + 1, np.int64), Origin.of_records(0, empty, empty), empty, empty)


@dataclass(frozen=True, slots=True)
class Origin:
    """Provenance of n rows; with the component's path it is all that a random stage may hash.

    Attributes:
        component: int64[n], an index into the dataset's components.
        epoch: int64[n], how often the record had been drawn before.
        record: int64[n], its index in the source.
        place: int64[n, depth], the row's place among the record's rows: one column for each
            flat_map (its output's index) and pack (token offset of the row's first segment); -1
            where a component has fewer.
        segments: the segments of packed rows; None where nothing was packed.
        beside: the records of a zip's other datasets, as segments without tokens; None without zip.
    """

    component: Int64s
    epoch: Int64s
    record: Int64s
    place: Int64s
    segments: Segments | None = None
    beside: Segments | None = None

    def __len__(self) -> int:
        return len(self.record)

    @staticmethod
    def of_records(component: int, epoch: Int64s, record: Int64s) -> Origin:
        n = len(record)
        which = np.full(n, component, np.int64) if component else np.zeros(n, np.int64)
        return Origin(which, epoch, record, np.zeros((n, 0), np.int64))

    @staticmethod
    def none() -> Origin:
        """The provenance of no rows."""
        return Origin.of_records(0, np.zeros(0, np.int64), np.zeros(0, np.int64))

    def take(self, indices: Int64s) -> Origin:
        """Rows by index."""
        segments = None if self.segments is None else self.segments.take(indices)
        beside = None if self.beside is None else self.beside.take(indices)
        return Origin(
            self.component[indices],
            self.epoch[indices],
            self.record[indices],
            self.place[indices],
            segments,
            beside,
        )

    def slice(self, start: int, stop: int) -> Origin:
        """Rows `[start, stop)`, as views."""
        rows = slice(start, stop)
        parts = self.component[rows], self.epoch[rows], self.record[rows], self.place[rows]
        if self.segments is None and self.beside is None:
            return Origin(*parts)
        segments = None if self.segments is None else self.segments.slice(start, stop)
        beside = None if self.beside is None else self.beside.slice(start, stop)
        return Origin(*parts, segments, beside)

    def deeper(self, place: Int64s) -> Origin:
        """The same rows with one more place column `place`: int64[n]."""
        return Origin(
            self.component,
            self.epoch,
            self.record,
            np.column_stack([self.place, place]).astype(np.int64),
            self.segments,
            self.beside,
        )

    @staticmethod
    def concat(parts: Sequence[Origin]) -> Origin:
        depths = {p.place.shape[1] for p in parts}
        if len(depths) == 1:
            place = np.concatenate([p.place for p in parts])
        else:
            place, start = np.full((sum(map(len, parts)), max(depths)), -1, np.int64), 0
            for p in parts:
                place[start : start + len(p), : p.place.shape[1]] = p.place
                start += len(p)
        segments = beside = None
        if any(p.segments is not None for p in parts):
            segments = Segments.concat([p.segments or Segments.none(len(p)) for p in parts])
        if any(p.beside is not None for p in parts):
            beside = Segments.concat([p.beside or Segments.none(len(p)) for p in parts])
        return Origin(
            np.concatenate([p.component for p in parts]),
            np.concatenate([p.epoch for p in parts]),
            np.concatenate([p.record for p in parts]),
            place,
            segments,
            beside,
        )

    @staticmethod
    def side_by_side(parts: Sequence[Origin]) -> Origin:
        """The provenance of zipped rows: that of the first part, with the others' beside it."""
        first, n, k = parts[0], len(parts[0]), len(parts) - 1
        if not k:
            return first
        # sorted by row: for each one, its record in each of the other parts
        others = Origin.concat(parts[1:]).take(np.arange(n * k).reshape(k, n).T.ravel())
        none = np.zeros(n * k, np.int64)
        beside = Segments(np.arange(n + 1) * k, others, none, none)
        return replace(first, beside=Segments.both(first.beside, beside))


@dataclass(frozen=True, slots=True)
class Block:
    """n rows, each with its provenance: the unit of work and of transport.

    Attributes:
        values: Columns, or a list of n rows.
        origin: provenance of the n rows.
        made: for messages, the stage that returned None as a row; "" if no row is None.
    """

    values: Values
    origin: Origin
    made: str = ""

    def __len__(self) -> int:
        return len(self.origin)

    def rows(self) -> list[Any]:
        """The rows as Python objects."""
        return self.values.rows() if isinstance(self.values, Columns) else self.values

    def take(self, indices: Int64s) -> Block:
        """Rows by index, copied if they are columns."""
        values = self.values
        taken = (
            values.read(indices) if isinstance(values, Columns) else [values[i] for i in indices]
        )
        return Block(taken, self.origin.take(indices), self.made)

    def slice(self, start: int, stop: int) -> Block:
        """Rows `[start, stop)`; columns are views."""
        return Block(
            self.values.slice(start, stop)
            if isinstance(self.values, Columns)
            else self.values[start:stop],
            self.origin.slice(start, stop),
            self.made,
        )

    @staticmethod
    def concat(parts: Sequence[Block], empty: Callable[..., NDArray[Any]] = np.empty) -> Block:
        """Blocks end to end; columns stay columns where fields, dtypes and shapes agree.

        Args:
            parts: one at least.
            empty: makes the columns from shape and dtype.
        """

        def joined(*columns: NDArray[Any]) -> NDArray[Any]:
            # with out=, as concatenate alone would change byte order and close gaps in structs
            first = columns[0]
            out = empty((sum(map(len, columns)), *first.shape[1:]), first.dtype)
            return np.concatenate(columns, out=out)

        # an empty block has no fields: it must not decide the layout of others
        parts = [p for p in parts if len(p)] or parts[:1]
        if len(parts) == 1:
            return parts[0]
        origin = Origin.concat([p.origin for p in parts])
        trees = [p.values.tree for p in parts if isinstance(p.values, Columns)]
        if len(trees) == len(parts) and all(_alike(trees[0], tree) for tree in trees[1:]):
            return Block(Columns(map_leaves(joined, *trees), len(origin)), origin)
        made = next((p.made for p in parts if p.made), "")
        return Block([row for p in parts for row in p.rows()], origin, made)


def _alike(one: Any, other: Any) -> bool:
    # whether columns have the same fields, dtypes and shapes; arrays and dicts are the common cases
    if type(one) is np.ndarray and type(other) is np.ndarray:
        return one.dtype == other.dtype and one.shape[1:] == other.shape[1:]
    if type(one) is dict and type(other) is dict and one.keys() == other.keys():
        return all(_alike(part, other[key]) for key, part in one.items())
    return _layout(one) == _layout(other)


def _layout(tree: Any) -> tuple[Any, ...]:
    found = sorted(leaves(tree), key=lambda item: item[0])
    # a tree without leaves is told by its type
    return tuple((name, a.dtype, a.shape[1:]) for name, a in found) or (type(tree),)


def as_int64(values: Any) -> Int64s:
    """Indices as int64[n]; floats and booleans are refused rather than truncated."""
    a = np.asarray(values)
    if a.dtype == np.int64 and a.ndim == 1:  # nearly always
        return a.copy()
    if a.size == 0:
        return np.zeros(0, np.int64)
    if a.dtype.kind not in "iu" or a.ndim != 1:
        raise TypeError(
            f"indices must be a one-dimensional sequence of integers, got {a.dtype}{list(a.shape)}"
        )
    return a.astype(np.int64)
