"""Boxes as an SVG drawing, sources at the top; it follows the reader's light or dark mode."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from textwrap import wrap

from pipeline.picture.graph import Box

_GAP, _DOWN, _PAD, _LINE, _LETTER = 24, 34, 10, 17, 7.1  # pixels
_LETTERS = 46  # of a line, at most
STYLE = """
.lockstep { font: 12px ui-monospace, SFMono-Regular, Menlo, monospace; }
.lockstep rect { fill: #f4f6fa; stroke: #5b6b8c; }
.lockstep .source rect { fill: #e6f2e8; stroke: #3c7a4a; }
.lockstep text { fill: #1c2333; }
.lockstep .title { font-weight: bold; }
.lockstep path { stroke: #5b6b8c; fill: none; marker-end: url(#lockstep-tip); }
@media (prefers-color-scheme: dark) {
.lockstep rect { fill: #232a3a; stroke: #8fa0c4; }
.lockstep .source rect { fill: #1f3325; stroke: #79b98a; }
.lockstep text { fill: #e8ecf4; }
.lockstep path { stroke: #8fa0c4; } }
"""


def svg_of(box: Box) -> str:
    """The whole drawing as the text of an SVG file."""
    width, height = _span(box), _tall(box)
    found: list[str] = []
    _draw(box, 1.0, height + 1.0, width, found)
    size = f'width="{width + 2:.0f}" height="{height + 2:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="lockstep" {size} '
        f'viewBox="0 0 {width + 2:.0f} {height + 2:.0f}" role="img" aria-label="dataset">'
        f"<style>{STYLE}</style>"
        '<defs><marker id="lockstep-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" '
        'style="fill:#7a89a8;stroke:none;marker-end:none"/></marker></defs>'
        + "".join(found)
        + "</svg>"
    )


def _lines(box: Box) -> list[str]:
    found: list[str] = []
    for text in box.lines:
        found += wrap(text, _LETTERS)
    return found


def _size(box: Box) -> tuple[float, float]:
    lines = _lines(box)
    return max(map(len, lines)) * _LETTER + 2 * _PAD, len(lines) * _LINE + 1.4 * _PAD


def _span(box: Box) -> float:
    # the width of a box and all drawn above it
    beneath = [max(_span(b), len(name) * _LETTER + 40) for name, b in box.beneath]
    return max(_size(box)[0], sum(beneath) + _GAP * (len(beneath) - 1))


def _tall(box: Box) -> float:
    return _size(box)[1] + max((_tall(b) + _DOWN for _, b in box.beneath), default=0.0)


def _draw(box: Box, left: float, bottom: float, span: float, found: list[str]) -> float:
    # draw a box, and those above it, into the strip that begins at `left` and ends at `bottom`;
    # returns the x of its middle
    width, height = _size(box)
    x, y = left + (span - width) / 2, bottom - height
    middle = x + width / 2
    at = left + (span - _span(box)) / 2
    spans = [max(_span(b), len(name) * _LETTER + 40) for name, b in box.beneath]
    at += max(0.0, (_span(box) - sum(spans) - _GAP * (len(spans) - 1)) / 2)
    for (name, below), wide in zip(box.beneath, spans, strict=True):
        start = _draw(below, at, y - _DOWN, wide, found)
        bend = f"C {start:.1f} {y - _DOWN / 2:.1f} {middle:.1f} {y - _DOWN / 2:.1f}"
        found.append(f'<path d="M {start:.1f} {y - _DOWN:.1f} {bend} {middle:.1f} {y:.1f}"/>')
        if name:
            found.append(
                f'<text x="{start + 6:.1f}" y="{y - _DOWN + 14:.1f}">{escape(name)}</text>'
            )
        at += wide + _GAP
    found.append("".join(_box(box, x, y, width, height)))
    return middle


def _box(box: Box, x: float, y: float, width: float, height: float) -> Iterator[str]:
    yield f'<g class="{"stage" if box.beneath else "source"}">'
    yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6"/>'
    for i, text in enumerate(_lines(box)):
        kind = ' class="title"' if i == 0 else ""
        down = y + _PAD + 9 + i * _LINE
        yield f'<text x="{x + _PAD:.1f}" y="{down:.1f}"{kind}>{escape(text)}</text>'
    yield "</g>"
