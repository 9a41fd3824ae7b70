"""How planned pieces become arrays: tokens, segment ids, positions, and values of each segment."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s
from pipeline.errors import ChainError
from pipeline.transforms.documents import Tokens
from pipeline.transforms.packers import Layout

Marks = tuple[int | None, int | None]
"""The tokens before and after each document, None for no token."""


def filled(
    docs: list[Tokens], layout: Layout, field: int, limit: int, marks: Marks = (None, None)
) -> tuple[Tokens, NDArray[np.int32], NDArray[np.int32]]:
    """One field's tokens, segment ids and positions, each `[rows, limit]`.

    Args:
        docs: the field's documents.
        layout: where they go, as if the marks were tokens of theirs.
        field: which column of the layout's sizes this is.
        limit: tokens a row.
        marks: its first and last token, which the documents lack.
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
    # all pieces, marks and paddings end to end: views, copied once
    dtype = next((d.dtype for d in docs if d.size), np.dtype(np.int64))
    before, after = (np.array([] if m is None else [m]).astype(dtype) for m in marks)
    size = np.fromiter(map(len, docs), np.int64, len(docs))[layout.document]
    start, stop = layout.start, layout.stop[:, field]
    zero, at = np.zeros_like(start), np.arange(len(start))
    own_start, own_stop = ((x - len(before)).clip(0, size) for x in (start, stop))
    closed = len(after) * (stop > size + len(before))
    pad = np.where(at == layout.bounds[layout.row + 1] - 1, pads[layout.row], 0)
    extra = len(docs) + np.arange(3)
    table = np.array(
        [
            [zero + extra[0], zero, len(before) * (start == 0) * (stop > 0)],
            [layout.document, own_start, own_stop],
            [zero + extra[1], zero, closed],
            [zero + extra[2], zero, pad],
        ]
    )
    which, first, last = table.transpose(1, 2, 0).reshape(3, -1)
    some = last > first
    pieces = which[some].tolist(), first[some].tolist(), last[some].tolist()
    docs = [*docs, before, after, np.zeros(int(pads.max()), dtype)]
    return np.concatenate([docs[d][a:b] for d, a, b in zip(*pieces, strict=True)])


def check_marks(marks: Marks, field: str, docs: list[Tokens]) -> None:
    """Refuse marks that the documents' dtype cannot hold.

    Raises:
        ChainError: it would change them.
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
    """One value a segment, from one a document.

    Args:
        a: `[documents, ...]`.
        layout: which documents are in which row.
        most: segments a row at most.

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
