"""The rules of packing by their definitions: piece by piece, with nothing clever."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

Sizes = tuple[int, ...]
Piece = tuple[int, int, Sizes]  # document, start, where it stops in each field


@dataclass
class Row:
    """What a row still has room for, and what it holds."""

    room: list[int]
    opener: Piece
    pieces: list[Piece] = field(default_factory=list)

    def takes(self, need: list[int], most: int | None) -> bool:
        free = most is None or len(self.pieces) < most
        return free and all(n <= r for n, r in zip(need, self.room, strict=True))

    def add(self, piece: Piece, need: list[int]) -> None:
        self.room = [r - n for n, r in zip(need, self.room, strict=True)]
        self.pieces.append(piece)


def slow_plan(
    sizes: list[Sizes],
    limits: Sizes,
    *,
    how: str,
    cross: bool,
    longest_first: bool,
    max_segments: int | None,
    longer: str,
) -> list[list[Piece]]:
    """The pieces of each row."""
    if longer != "split":
        sizes = [tuple(map(min, size, limits)) for size in sizes]
    if how == "split" and cross:
        return _split([size[0] for size in sizes], limits, max_segments)
    pieces = _pieces(sizes, limits)
    if how != "split" and longest_first:  # sorted() keeps what is equal in order
        pieces.sort(key=lambda p: -max(map(Fraction, _need(p, limits), limits)))
    rows: list[Row] = []
    for piece in pieces:
        need = _need(piece, limits)
        known = rows[-1:] if how == "split" else rows
        candidates = [r for r in known if r.takes(need, max_segments)]
        if how == "best_fit":
            candidates.sort(key=lambda r: sum(map(Fraction, r.room, limits)))
        if not candidates:
            candidates = [Row(list(limits), piece)]
            rows.append(candidates[0])
        candidates[0].add(piece, need)
    return [sorted(r.pieces) for r in sorted(rows, key=lambda r: r.opener)]


def _pieces(sizes: list[Sizes], limits: Sizes) -> list[Piece]:
    pieces: list[Piece] = []
    for document, size in enumerate(sizes):
        start = tuple(0 for _ in size)
        while any(a < n for a, n in zip(start, size, strict=True)):
            stop = tuple(min(a + L, n) for a, n, L in zip(start, size, limits, strict=True))
            pieces.append((document, start[0], stop))
            start = stop
    return pieces


def _need(piece: Piece, limits: Sizes) -> list[int]:
    # a document is cut only where its fields are equally long, so all pieces start alike
    return [stop - piece[1] for stop in piece[2]]


def _split(sizes: list[int], limits: Sizes, most: int | None) -> list[list[Piece]]:
    rows: list[list[Any]] = [[]]
    used = 0
    for document, size in enumerate(sizes):
        for token in range(size):
            last = rows[-1][-1] if rows[-1] else None
            starts = last is None or last[0] != document
            if used == limits[0] or (starts and most is not None and len(rows[-1]) == most):
                rows.append([])
                used, starts = 0, True
            if starts:
                rows[-1].append([document, token, token])
            rows[-1][-1][2] = token + 1
            used += 1
    return [[(d, a, (b,) * len(limits)) for d, a, b in row] for row in rows if row]
