"""Boxes as lines for a terminal, from the sources down."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.picture.graph import Box


def lines_of(box: Box) -> list[str]:
    """One line for each box: sources first, and a join below what it joins."""
    rows = list(_rows(box, ""))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return ["  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in rows]


def _rows(box: Box, indent: str) -> Iterator[tuple[str, str, str, str]]:
    joined = [name for name, _ in box.beneath if name]
    for name, below in box.beneath:
        if name:
            yield f"{indent}{name}", "", "", ""
        yield from _rows(below, indent + "│ " * bool(joined))
    mark = "╰ " if joined else "↓ " if box.beneath else ""
    yield f"{indent}{mark}{box.title}", box.rows, box.spec, box.seed
