"""Rows as a function is given them: its own to change, even where somebody else holds their memory.

A function may return memory that it keeps, such as a row of a table or what `lru_cache` holds. If
the next function changed that in place, rows would depend on how often it was done before.
"""

from __future__ import annotations

import array
import sys
from collections import deque
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any, cast

import numpy as np

from pipeline.tree import ATOMS, DEEPEST, children, fresh, is_constant

FEW = 8  # rows, of which two are looked at
MOST = 64  # items of a list that are looked at
WATCHED = 1 << 13  # elements of an array or a list that are compared, at most


class Given:
    """The rows of a block, to be iterated over once, as a function is called on each.

    Where memory of the first or last ones is held by others, the function gets a copy of the first
    row; and copies of all others, if it changed that one.

    Args:
        rows: the rows.
        lists: how many lists hold them, this one among them.
        lent: whether others are known to hold memory of rows.

    Attributes:
        all: the rows as they are.
        lent: whether others hold memory of rows. Some of those looked at may be copies: the first
            one made here before, or the last one by a `flat_map` that gave a row twice.
        copied: whether the function changes rows in place that others hold: known after the first.

    >>> table = np.ones(2)
    >>> for row in Given([table, table]):
    ...     row *= 2
    >>> table
    array([1., 1.])
    """

    __slots__ = ("all", "copied", "lent")

    def __init__(self, rows: list[Any], lists: int = 1, lent: bool = False) -> None:
        self.all, self.copied = rows, False
        looked = (0, -1) if len(rows) < FEW else (0, -1, -2)
        self.lent = bool(rows) and (lent or any(_lent(rows, i, lists) for i in looked))

    def __len__(self) -> int:
        return len(self.all)

    def __iter__(self) -> Iterator[Any]:
        return self._owned() if self.lent else iter(self.all)

    def _owned(self) -> Iterator[Any]:
        first = fresh(self.all[0])
        watched = Watch(first)
        yield first
        self.copied = watched.changed
        rest = islice(self.all, 1, None)
        yield from map(fresh, rest) if self.copied else rest


def _lent(rows: list[Any], i: int, lists: int) -> bool:
    return type(rows[i]) not in ATOMS and _excess(rows, i, lists) > _alone()


def _excess(rows: list[Any], i: int, lists: int) -> int:
    # the most references to a part of a row, apart from those within the row
    parts: list[Any] = []
    within: dict[int, int] = {}
    _collect(rows[i], parts, within, 0)
    if parts and parts[0] is rows[i]:
        within[id(parts[0])] += lists - 1
    return max([sys.getrefcount(part) - within[id(part)] for part in parts], default=0)


def _collect(value: Any, parts: list[Any], within: dict[int, int], depth: int) -> None:
    # what can be changed in place, and how often it is referred to
    kind = type(value)
    if kind in ATOMS or depth > DEEPEST or is_constant(kind):
        return
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        return
    if not isinstance(value, tuple):
        within[id(value)] = within.get(id(value), 0) + 1
        if within[id(value)] > 1:
            return
        parts.append(value)
    if isinstance(value, np.ndarray):
        if value.base is not None:
            _collect(value.base, parts, within, depth + 1)
    elif isinstance(value, list):
        for item in cast(list[Any], value)[:MOST]:
            _collect(item, parts, within, depth + 1)
    else:
        for _, part in children(value) or ():
            _collect(part, parts, within, depth + 1)


@cache
def _alone() -> int:
    # the same of a row that nobody else holds: interpreters count differently
    return _excess([{"x": [np.zeros(2)[:1]]}], 0, 1)


# ---- what was changed


class Watch:
    """A row as a function returned it, to be compared with what it is later.

    Arrays, tensors on the CPU, bytearrays, sets, lists, dicts and the like are looked into, of
    large ones some elements; other objects only need to be the same ones.

    >>> row = {"x": [1, 2]}
    >>> watch = Watch(row)
    >>> watch.changed
    False
    >>> row["x"][1] = 3
    >>> watch.changed
    True
    """

    __slots__ = ("_held", "_row")

    def __init__(self, row: Any) -> None:
        self._row = row
        self._held = None if type(row) in ATOMS else _content(row)

    @property
    def changed(self) -> bool:
        """Whether the row is no longer what it was."""
        return self._held is not None and _content(self._row) != self._held


class _Same:
    # an object that is not looked into: equal to itself alone
    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def _content(value: Any, depth: int = 0) -> Any:
    # something that equals what this returns later as long as the value is not changed
    kind = type(value)
    if kind in ATOMS:
        return value
    if depth > DEEPEST:  # said where it is stacked
        return None
    if isinstance(value, np.ndarray):
        return _of_array(value, depth)
    if isinstance(value, np.generic):
        return kind, value.tobytes()
    if isinstance(value, list | deque):
        return [_content(v, depth + 1) for v in _some(list(cast(list[Any], value)))]
    if kind is dict:
        return {k: _content(v, depth + 1) for k, v in cast(dict[Any, Any], value).items()}
    if isinstance(value, bytearray | array.array):
        return bytes(value)
    if isinstance(value, set):
        return frozenset(cast(set[Any], value))
    if type(value) is getattr(sys.modules.get("torch"), "Tensor", None):
        return _of_tensor(value)
    parts = children(value)
    if parts is None:
        return _Same(value)
    return [(name, _content(part, depth + 1)) for name, part in parts]


def _some(values: Any) -> Any:
    return values[:: len(values) // WATCHED + 1]


def _of_array(a: np.ndarray[Any, Any], depth: int) -> Any:
    if not a.flags.writeable:  # who could write to it all the same does so on purpose
        return _Same(a)
    flat = _some(a.ravel(order="K")) if a.flags.forc else a[:1]
    if not a.dtype.hasobject:
        return flat.tobytes()
    return [_content(v, depth + 1) for v in flat.reshape(-1).tolist()]


def _of_tensor(tensor: Any) -> Any:
    try:
        flat = tensor.detach()
        flat = _some(flat.view(-1)) if flat.is_contiguous() else flat[:1]
        return flat.contiguous().view(sys.modules["torch"].uint8).numpy().tobytes()
    except (RuntimeError, TypeError, ValueError):  # sparse, quantized, or on another device
        return _Same(tensor)
