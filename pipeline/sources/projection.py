"""Selecting columns, and checking that all files have the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.checks import shown
from pipeline.errors import SourceError
from pipeline.sources.arrow_types import fault, merged, plain_schema
from pipeline.sources.complaints import parsing, unreadable

if TYPE_CHECKING:
    import pyarrow as pa


def distinct(columns: Sequence[str]) -> tuple[str, ...]:
    """Column names as a tuple, checked: at least one, each once, none within another.

    >>> distinct(["a.x", "b"])
    ('a.x', 'b')
    """
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    if not names or len(set(names)) != len(names):
        raise SourceError(f"columns={list(names)} must name at least one column, each once.")
    for name in names:
        within = [other for other in names if name.startswith(other + ".")]
        if within:
            raise SourceError(
                f"columns={list(names)}: {name!r} is part of {within[0]!r}. Name one."
            )
    return names


def projected(path: str, schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    """The plain schema of the selected columns; "a.b" is field b of the struct a.

    Raises:
        SourceError: a column does not exist, or the file's column names are missing or not unique.
    """
    import pyarrow as pa

    with parsing(path):  # a name may not be UTF-8
        names = schema.names
        faults = {field.name: fault(field.type) for field in schema}
    if len(set(names)) != len(names) or not names:
        raise unreadable(path, f"its columns {names} need names, each its own")
    for name, why in faults.items():
        wanted = columns is None or any(_in(column, name) for column in columns)
        if wanted and why is not None:
            raise unreadable(path, f"column {name!r} {why}")
    if columns is None:
        return plain_schema(schema)
    fields: dict[str, pa.Field] = {}
    missing: list[str] = []
    for column in columns:
        found = _found(list(schema), column)
        if found is None:
            missing.append(column)
        else:
            old = fields.get(found.name)
            fields[found.name] = found if old is None else _joined(old, found)
    if missing:
        raise SourceError(
            f"{path} has no column {shown(missing)}. Choose among {shown(schema.names)}."
        )
    return plain_schema(pa.schema(list(fields.values())))


def _in(column: str, top: str) -> bool:
    return column == top or column.startswith(top + ".")


def _found(fields: Sequence[pa.Field], column: str) -> pa.Field | None:
    # the field; of a struct only the path to the selected part
    import pyarrow as pa
    from pyarrow import types

    for field in fields:
        if field.name == column:
            return field
    for field in fields:
        if column.startswith(field.name + ".") and types.is_struct(field.type):
            inner = _found(list(field.type), column[len(field.name) + 1 :])
            if inner is not None:
                return pa.field(field.name, pa.struct([inner]))
    return None


def _joined(a: pa.Field, b: pa.Field) -> pa.Field:
    # merges two selections from one struct
    import pyarrow as pa

    fields = {field.name: field for field in a.type}
    for field in b.type:
        fields[field.name] = _joined(fields[field.name], field) if field.name in fields else field
    return pa.field(a.name, pa.struct(list(fields.values())))


def joined(first: str, expected: pa.Schema, path: str, schema: pa.Schema) -> pa.Schema:
    """The plain schema that the file `path` has in common with earlier files, `first` among them.

    `expected` is the schema of the earlier files. Types need not be equal, but must decode to the
    same values (`arrow_types.merged`).

    Raises:
        SourceError: columns differ; the message names the column, both types and both files.
    """
    import pyarrow as pa

    a, b = ({field.name: field.type for field in s} for s in (expected, schema))
    both = {name: merged(a[name], b[name]) for name in a if name in b}
    for name in sorted(a.keys() | b.keys()):
        if both.get(name) is None:
            raise SourceError(
                f"column {name!r} is {b.get(name, 'absent')} in {path} but "
                f"{a.get(name, 'absent')} in {first}. Rewrite one, or leave it out with columns=."
            )
    return pa.schema([(name, kind) for name, kind in both.items() if kind is not None])
