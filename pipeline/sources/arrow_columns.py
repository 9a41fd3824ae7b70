"""The columns of a decoded chunk: rows of them are copied out, and it is known where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s
from pipeline.sources.arrow_places import Places, places_of
from pipeline.sources.arrow_types import is_ragged

Bools = NDArray[np.bool_]


class Unusable(Exception):
    """A value that has no NumPy or Python equivalent.

    Attributes:
        column: the column's dotted name.
        row: the row's index in its chunk.
        why: what is wrong with the value.
        remedy: what to do about it, besides skipping the row.
    """

    def __init__(self, column: str, row: int, why: str, remedy: str) -> None:
        super().__init__(column, row, why, remedy)
        self.column, self.row, self.why, self.remedy = column, row, why, remedy


class Column(Protocol):
    """One column of a decoded chunk. Values stay in Arrow's buffers where possible."""

    def memory(self) -> Iterator[tuple[int, int]]:
        """Address and size in bytes of each piece of memory that it keeps."""
        ...

    def places(self, rows: Int64s) -> Places:
        """Address and size in bytes of the values of `rows`, wherever that can be told."""
        ...

    def room(self, n: int) -> NDArray[Any]:
        """A writable, uninitialised array for n rows of this column."""
        ...

    def put(self, out: NDArray[Any], at: Int64s, rows: Int64s) -> None:
        """Copy `rows` of this column to `out[at]`.

        Raises:
            Unusable: in one of `rows` an integer or boolean is null, or text is not UTF-8.
        """
        ...


Tree = dict[str, Any]  # columns by name, nested where the table has structs


def memory(tree: Tree) -> Iterator[tuple[int, int]]:
    """Address and size in bytes of each piece of memory that columns keep."""
    for column in tree.values():
        yield from memory(column) if isinstance(column, dict) else column.memory()


def places(tree: Tree, rows: Int64s) -> Places:
    """Address and size in bytes of the values of `rows`, int64[n] each, a pair for each array."""
    for column in tree.values():
        yield from places(column, rows) if isinstance(column, dict) else column.places(rows)


def room(tree: Tree, n: int) -> Tree:
    """Uninitialised arrays for n rows of these columns."""
    return {k: room(c, n) if isinstance(c, dict) else c.room(n) for k, c in tree.items()}


def put(tree: Tree, out: Tree, at: Int64s, rows: Int64s) -> None:
    """Copy `rows` of these columns to `out[at]`.

    Raises:
        Unusable: in one of `rows` an integer or boolean is null, or text is not UTF-8.
    """
    for name, column in tree.items():
        if isinstance(column, dict):
            put(column, out[name], at, rows)
        else:
            column.put(out[name], at, rows)


class Fixed:
    """A column of numbers, times, or fixed-size lists of them: an array `[n, ...]`.

    Args:
        name: of the column, dotted.
        values: `[n, ...]`.
        unusable: bool[n], rows whose value NumPy cannot hold; None if there are none.
        why: what is wrong with those values, for the error.
    """

    def __init__(self, name: str, values: NDArray[Any], unusable: Bools | None, why: str) -> None:
        self._name, self._values, self._unusable, self._why = name, values, unusable, why

    def memory(self) -> Iterator[tuple[int, int]]:
        yield _address(self._values), self._values.nbytes

    def places(self, rows: Int64s) -> Places:
        step = self._values.strides[0]
        yield _address(self._values) + rows * step, np.full(len(rows), step, np.int64)

    def room(self, n: int) -> NDArray[Any]:
        return np.empty((n, *self._values.shape[1:]), self._values.dtype)

    def put(self, out: NDArray[Any], at: Int64s, rows: Int64s) -> None:
        refuse(self._unusable, rows, self._name, self._why)
        out[at] = self._values[rows]


class Ragged:
    """A column of lists of numbers: an object array of arrays, each a copy; a null list is None.

    Args:
        name, why: as for `Fixed`.
        lists: the Arrow array, of which offsets and nulls are used.
        values: `[m, ...]`, the elements of all lists.
        unusable: bool[m], elements that NumPy cannot hold; None if there are none.
    """

    def __init__(
        self, name: str, lists: Any, values: NDArray[Any], unusable: Bools | None, why: str
    ) -> None:
        self._name, self._values, self._why = name, values, why
        offsets = lists.offsets.to_numpy()
        self._starts, self._stops = offsets[:-1], offsets[1:]
        self._none = nulls_of(lists)
        self._unusable: Bools | None = None
        if unusable is not None:
            before = np.concatenate([[0], np.cumsum(unusable)])
            self._unusable = before[self._stops] > before[self._starts]
            if self._none is not None:
                self._unusable &= ~self._none

    def memory(self) -> Iterator[tuple[int, int]]:
        yield _address(self._values), self._values.nbytes
        yield _address(self._starts), self._starts.nbytes

    def places(self, rows: Int64s) -> Places:
        step = self._values.strides[0]
        starts, stops = self._starts[rows].astype(np.int64), self._stops[rows].astype(np.int64)
        yield _address(self._values) + starts * step, (stops - starts) * step

    def room(self, n: int) -> NDArray[Any]:
        return np.empty(n, object)

    def put(self, out: NDArray[Any], at: Int64s, rows: Int64s) -> None:
        refuse(self._unusable, rows, self._name, self._why)
        values = self._values
        spans = zip(self._starts[rows].tolist(), self._stops[rows].tolist(), strict=True)
        for i, (start, stop) in zip(at.tolist(), spans, strict=True):
            out[i] = values[start:stop].copy()
        if self._none is not None:
            out[at[self._none[rows]]] = None


class Objects:
    """A column of text, binary, decimals or deeper nesting: an object array of Python objects."""

    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def memory(self) -> Iterator[tuple[int, int]]:
        for buffer in self._array.buffers():
            if buffer is not None:
                yield buffer.address, buffer.size

    def places(self, rows: Int64s) -> Places:
        return places_of(self._array, rows, rows + 1)

    def room(self, n: int) -> NDArray[Any]:
        return np.empty(n, object)

    def put(self, out: NDArray[Any], at: Int64s, rows: Int64s) -> None:
        import pyarrow as pa

        try:
            self._put(out, at, rows)
        except (UnicodeDecodeError, ValueError, OverflowError, pa.ArrowException) as e:
            # find the first row that fails alone; or there are too many for 32-bit offsets
            if len(rows) > 1:
                for some in np.array_split(np.arange(len(rows)), 2):
                    self.put(out, at[some], rows[some])
                return
            remedy = "Is it text in another encoding than UTF-8? Store it as binary"
            if not isinstance(e, UnicodeDecodeError) and _has_times(self._array.type):
                remedy = (
                    "Python's times have microseconds and end with the day. Store it as a number"
                )
            why = f"cannot be had from its {self._array.type} ({' '.join(str(e).split())})"
            raise Unusable(self._name, int(rows[0]), why, remedy) from None

    def _put(self, out: NDArray[Any], at: Int64s, rows: Int64s) -> None:
        import pyarrow as pa
        from pyarrow import types

        # for intervals, to_numpy would give other objects
        if not (types.is_nested(self._array.type) or types.is_interval(self._array.type)):
            taken = self._array.take(pa.array(rows))
            out[at] = taken.to_numpy(zero_copy_only=False).astype(object)
            return
        for i, value in zip(at.tolist(), _python(self._array, rows), strict=True):
            out[i] = value  # out[at] = values would unpack lists of equal length


def _python(array: Any, rows: Int64s) -> list[Any]:
    import pyarrow as pa
    from pyarrow import types

    if types.is_union(array.type):  # `take` does not support every type that a union may hold
        return [array[i].as_py() for i in rows.tolist()]
    taken = array.take(pa.array(rows))
    _check_times(taken)
    return taken.to_pylist()


def _check_times(array: Any) -> None:
    # raise where `to_pylist` would leave out the nanoseconds of a time within lists and structs
    import pyarrow as pa
    from pyarrow import types

    kind = array.type
    if kind == pa.time64("ns"):
        array.cast(pa.time64("us"))
    elif types.is_struct(kind):
        for part in array.flatten():
            _check_times(part)
    elif types.is_map(kind):
        _check_times(array.keys)
        _check_times(array.items)
    elif types.is_fixed_size_list(kind) or is_ragged(kind):
        _check_times(array.flatten())


def _has_times(kind: Any) -> bool:
    from pyarrow import types

    parts = [kind.field(i).type for i in range(kind.num_fields)]
    return types.is_temporal(kind) or any(map(_has_times, parts))


def _address(array: NDArray[Any]) -> int:
    return array.__array_interface__["data"][0]


def nulls_of(array: Any) -> Bools | None:
    """bool[n], which values are null; None if none is."""
    return array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None


def refuse(unusable: Bools | None, rows: Int64s, name: str, why: str) -> None:
    """Raise if one of `rows` is unusable.

    Args:
        unusable: bool[n], which rows cannot be read; None if all can.
        rows: int64[k], the rows asked for.
        name: of the column, for the error.
        why: what is wrong with unusable rows, for the error.

    Raises:
        Unusable: for the first such row.
    """
    if unusable is not None and (lacking := unusable[rows]).any():
        remedy = "Fill it, leave it out with columns="
        if "null" in why:
            remedy = 'Read it with nulls="float" or nulls="mask", or leave it out with columns='
        raise Unusable(name, int(rows[np.argmax(lacking)]), why, remedy)
