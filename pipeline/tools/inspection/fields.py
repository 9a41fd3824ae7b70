"""The fields of some records: type, shape, and how long their values are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.block import Columns
from pipeline.tree import leaves


class Field(NamedTuple):
    """One field, over some records.

    Attributes:
        kind: the dtype of arrays and numbers; "bytes", "text", "list" or a class; joined by " | "
            if records differ.
        shape: of arrays; None for an axis whose size differs. () for anything else.
        lengths: smallest and largest number of bytes, characters or elements; None if not
            applicable.
        records: how many records have the field.
    """

    kind: str
    shape: tuple[int | None, ...]
    lengths: tuple[int, int] | None
    records: int

    def __str__(self) -> str:
        shape = ", ".join("*" if n is None else str(n) for n in self.shape)
        text = f"{self.kind}[{shape}]" if self.shape else self.kind
        if self.lengths is None:
            return text
        least, most = self.lengths
        return f"{text} of {least:,} to {most:,}" if least < most else f"{text} of {least:,}"


def fields_of(rows: Iterable[Any]) -> dict[str, Field]:
    """The fields of rows by dotted name; "" if rows are bare values.

    >>> rows = [{"id": 1, "x": np.zeros((2, 3))}, {"id": 2, "x": np.zeros((4, 3)), "t": "to"}]
    >>> {name: str(field) for name, field in fields_of(rows).items()}
    {'id': 'int', 'x': 'float64[*, 3]', 't': 'text of 2'}
    """
    values: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in leaves(row):
            values.setdefault(name, []).append(value)
    return {name: _field(some) for name, some in values.items()}


def fields_of_columns(columns: Columns) -> dict[str, Field]:
    """The fields of a source's columns by dotted name, from dtypes alone.

    >>> fields = fields_of_columns(Columns({"x": np.zeros((0, 3)), "t": np.zeros(0, object)}))
    >>> {name: str(field) for name, field in fields.items()}
    {'x': 'float64[3]', 't': 'object'}
    """
    return {name: Field(str(a.dtype), a.shape[1:], None, 0) for name, a in leaves(columns.tree)}


def _field(values: Sequence[Any]) -> Field:
    kinds = dict.fromkeys(_kind(v) for v in values)
    lengths = [len(v) for v in values if isinstance(v, bytes | str | list)]
    shapes = [v.shape for v in values if isinstance(v, np.ndarray)]
    shape = _shape(shapes) if len(shapes) == len(values) else ()
    among = (min(lengths), max(lengths)) if lengths else None
    return Field(" | ".join(kinds), shape, among, len(values))


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray | np.generic):
        return str(value.dtype)
    known = {bytes: "bytes", str: "text", type(None): "none"}
    return known.get(type(value), type(value).__name__)


def _shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int | None, ...]:
    if len({len(shape) for shape in shapes}) > 1:
        return (None,)
    return tuple(axis[0] if len(set(axis)) == 1 else None for axis in zip(*shapes, strict=True))
