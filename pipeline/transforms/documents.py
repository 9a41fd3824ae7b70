"""What is packed: fields of a block's rows as token arrays, checked to be alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Block, Columns
from pipeline.checks import numeric, shown
from pipeline.errors import ChainError, CollateError
from pipeline.transforms.collate import collate
from pipeline.tree import children

Tokens = NDArray[Any]
Describe = Callable[[int], str]


def documents(
    block: Block,
    fields: tuple[str, ...],
    bare: bool,
    describe: Describe,
    meta: tuple[str, ...] = (),
) -> tuple[dict[str, list[Tokens]], dict[str, Any]]:
    """Each field's documents, one array of tokens for each row of the block; and what goes along.

    Args:
        block: n rows, columns or not.
        fields: those to pack.
        bare: rows are token arrays themselves, called by the only field's name.
        describe: names row i in messages.
        meta: further fields, which are stacked; with `fields` they are all that rows have.

    Raises:
        ChainError: rows have other fields.
        CollateError: a field is no array of numbers with one axis, its dtype varies, or the values
            of a meta field do not stack.
    """
    values, names = block.values, (*fields, *meta)
    if isinstance(values, Columns):
        parts = _parts(values.tree, names, bare, describe, 0)
        columns = {field: list(parts[field]) for field in fields}
        kept = {name: parts[name] for name in meta}
    elif bare and all(type(row) is np.ndarray for row in values):
        columns, kept = {fields[0]: values}, {}
    else:
        rows = [_parts(row, names, bare, describe, i) for i, row in enumerate(values)]
        columns = {field: [row[field] for row in rows] for field in fields}
        along = [{name: row[name] for name in meta} for row in rows] if meta else []
        kept = collate(along, describe) if along else {}
    return {field: _tokens(column, field, describe) for field, column in columns.items()}, kept


def _parts(
    row: Any, fields: tuple[str, ...], bare: bool, describe: Describe, i: int
) -> Mapping[str, Any]:
    if type(row) is dict and not bare and row.keys() == set(fields):
        return row
    parts = None if isinstance(row, np.ndarray | list) else children(row)
    if bare and parts is None:
        return {fields[0]: row}
    found = None if parts is None else dict(parts)
    if found is None or bare or found.keys() != set(fields):
        raise ChainError(_misfit(found, fields, bare, describe(i)))
    return found


def _misfit(found: dict[str, Any] | None, fields: tuple[str, ...], bare: bool, row: str) -> str:
    if found is None:
        return (
            f"pack has lengths for the fields {shown(list(fields))}, but {row} is no dict. "
            "For rows that are token arrays give one int: pack(2048)."
        )
    texts = [name for name, value in found.items() if isinstance(value, str | bytes)]
    first = f" Tokenize {shown(texts)} first, in .map: pack takes numbers." if texts else ""
    if bare:
        return (
            f"pack has one length, for rows that are token arrays, but {row} has the fields "
            f"{shown(list(found))}. Give each its length: "
            f"pack({{{next(iter(found), 'tokens')!r}: 2048}}).{first}"
        )
    missing = [field for field in fields if field not in found]
    if missing:
        return (
            f"pack wants the fields {missing}, but {row} has only the fields "
            f"{shown(list(found))}.{first}"
        )
    extra = [field for field in found if field not in fields]
    return (
        f"pack was not told what to do with the fields {shown(extra)} of {row}, only with "
        f"{list(fields)}. "
        "Give them lengths to pack them, or meta= to keep one value a segment; or drop them in "
        ".map."
    )


def _are_tokens(dtype: np.dtype[Any], axes: int) -> bool:
    return axes == 1 and numeric(dtype)


def _tokens(column: list[Any], field: str, describe: Describe) -> list[Tokens]:
    arrays = [a if type(a) is np.ndarray else np.asarray(a) for a in column]
    # what differs is looked for only where something does
    kinds = {(a.dtype, a.ndim) for a in arrays if a.size or a.ndim != 1}
    if not kinds or (len(kinds) == 1 and _are_tokens(*next(iter(kinds)))):
        return arrays
    for i, a in enumerate(arrays):
        if a.ndim != 1 or (a.size and not _are_tokens(a.dtype, a.ndim)):
            kind = type(column[i]).__name__ if a.ndim == 0 else f"{a.dtype}{list(a.shape)}"
            remedy = "Flatten it in .map."
            if isinstance(column[i], str | bytes):
                remedy = "Tokenize it first: .map(lambda text: np.array(encode(text)))."
            raise CollateError(
                f"cannot pack field {field!r}: {describe(i)} has {kind}, not numbers along one "
                f"axis. {remedy}"
            )
    # an empty list has no dtype of its own, and an empty document gives no tokens
    full = [i for i, a in enumerate(arrays) if a.size]
    for i in full:
        if arrays[i].dtype != arrays[full[0]].dtype:
            raise CollateError(
                f"cannot pack field {field!r}: {describe(full[0])} has dtype "
                f"{arrays[full[0]].dtype}, {describe(i)} has {arrays[i].dtype}. "
                "Give every row one dtype in .map."
            )
    return arrays
