"""Turns rows into token arrays for pack, and their planned pieces into packed arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Block, Columns, Int64s
from pipeline.checks import numeric, shown
from pipeline.errors import ChainError, CollateError
from pipeline.sources.exact import InexactError, exact
from pipeline.transforms.collate import collate
from pipeline.transforms.packers import Layout
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
    """The documents of each field, as n arrays of tokens; and each meta field, stacked.

    Args:
        block: n rows, as columns or a list.
        fields: the fields to pack.
        bare: whether rows are token arrays themselves, which the only field names.
        describe: names row i in messages.
        meta: further fields, which are stacked. Rows must have no others.

    Raises:
        ChainError: rows have other fields.
        CollateError: a field is not an array of numbers with one axis, its dtype varies, or the
            values of a meta field do not stack.
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


def _array(value: Any, field: str, describe: Describe, i: int) -> NDArray[Any]:
    if type(value) is np.ndarray:
        return value
    try:
        return exact(value)
    except InexactError as e:
        raise CollateError(f"cannot pack field {field!r}: {describe(i)} has {e}") from None


def _tokens(column: list[Any], field: str, describe: Describe) -> list[Tokens]:
    arrays = [_array(a, field, describe, i) for i, a in enumerate(column)]
    # the row that differs is looked for only if one does
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


Marks = tuple[int | None, int | None]
"""The tokens before and after each document, None for no token."""


def filled(
    docs: list[Tokens], layout: Layout, field: int, limit: int, marks: Marks = (None, None)
) -> tuple[Tokens, NDArray[np.int32], NDArray[np.int32]]:
    """One field's tokens, segment ids and positions, each `[rows, limit]`.

    Args:
        docs: the field's documents, without marks.
        layout: where they go; it counts marks as tokens of the documents.
        field: the field's column in the layout's sizes.
        limit: tokens of a row.
        marks: the tokens to put before and after each document.
    """
    bounds, n = layout.bounds, layout.rows
    sizes = layout.sizes[:, field]
    pads = limit - np.add.reduceat(sizes, bounds[:-1])
    number = np.arange(len(sizes)) - bounds[layout.row] + 1
    # one more piece at the end of each row, number 0: its padding
    spans = np.insert(sizes, bounds[1:], pads)
    ids = np.repeat(np.insert(number, bounds[1:], 0).astype(np.int32), spans).reshape(n, limit)
    begins = ((np.cumsum(spans) - spans) % limit).astype(np.int32)
    positions = np.repeat(begins, spans).reshape(n, limit)
    np.subtract(np.arange(limit, dtype=np.int32), positions, out=positions)
    for row in np.flatnonzero(pads).tolist():  # cheaper than a mask over every token
        positions[row, limit - pads[row] :] = 0
    return _laid(docs, layout, field, pads, marks).reshape(n, limit), ids, positions


def _laid(docs: list[Tokens], layout: Layout, field: int, pads: Int64s, marks: Marks) -> Tokens:
    # all pieces, marks and paddings end to end: gathered as views, copied once
    dtype = next((d.dtype for d in docs if d.size), np.dtype(np.int64))
    before, after = (np.array([] if m is None else [m]).astype(dtype) for m in marks)
    size = np.fromiter(map(len, docs), np.int64, len(docs))[layout.document]
    start, stop = layout.start, layout.stop[:, field]
    zero, at = np.zeros_like(start), np.arange(len(start))
    own_start, own_stop = ((x - len(before)).clip(0, size) for x in (start, stop))
    closed = len(after) * (stop > size + len(before))
    pad = np.where(at == layout.bounds[layout.row + 1] - 1, pads[layout.row], 0)
    extra = len(docs) + np.arange(3)
    pieces = [[layout.document, own_start, own_stop], [zero + extra[2], zero, pad]]
    if len(before):
        pieces.insert(0, [zero + extra[0], zero, (start == 0) * (stop > 0)])
    if len(after):
        pieces.insert(-1, [zero + extra[1], zero, closed])
    which, first, last = np.array(pieces).transpose(1, 2, 0).reshape(3, -1)
    some = last > first
    views = which[some].tolist(), first[some].tolist(), last[some].tolist()
    docs = [*docs, before, after, np.zeros(int(pads.max()), dtype)]
    return np.concatenate([docs[d][a:b] for d, a, b in zip(*views, strict=True)])


def check_marks(marks: Marks, field: str, docs: list[Tokens]) -> None:
    """Refuse marks that the documents' dtype cannot hold.

    Raises:
        ChainError: the dtype would change a mark.
    """
    dtype = next((d.dtype for d in docs if d.size), np.dtype(np.int64))
    for name, mark in zip(("bos", "eos"), marks, strict=True):
        if mark is None:
            continue
        held = np.array([mark]).astype(dtype)
        if held.tolist() != [mark]:
            raise ChainError(
                f"pack({name}={mark}): field {field!r} has tokens of {dtype}, which cannot hold "
                f"it. Use a wider dtype in .map, or another {name}."
            )


def values_of(a: NDArray[Any], layout: Layout, most: int | None) -> NDArray[Any]:
    """The value of each segment, given that of each document.

    Args:
        a: `[documents, ...]`.
        layout: which documents are in which row.
        most: the most segments of a row; None if there is no limit.

    Returns:
        `[rows, most, ...]`, where no segment is 0 (None for objects); or, if `most` is None,
        objects `[rows]`, each an array `[segments of that row, ...]`.
    """
    bounds = layout.bounds
    if most is None:
        ragged = np.empty(layout.rows, object)
        for row, part in enumerate(np.split(a[layout.document], bounds[1:-1])):
            ragged[row] = part
        return ragged
    out = np.zeros((layout.rows, most, *a.shape[1:]), a.dtype)
    if a.dtype == object:
        out[...] = None
    out[layout.row, np.arange(len(layout.row)) - bounds[layout.row]] = a[layout.document]
    return out
