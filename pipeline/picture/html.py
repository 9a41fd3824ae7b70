"""Tables and pages in HTML: one file, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape as escaped

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 60rem; }
body { padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8886; }
th:first-child, td:first-child { text-align: left; }
.scroll { overflow-x: auto; }
.bar { background: #4a74c9; height: .8rem; border-radius: 3px; min-width: 2px; }
.bar { flex: none; width: calc(var(--share) * min(220px, 15vw)); }
.bars { display: flex; gap: .5rem; align-items: center; white-space: nowrap; }
.limit { font-weight: bold; }
.limit .bar { background: #c2553d; }
"""


def table(titles: Sequence[str], rows: Iterable[Sequence[object]], *, safe: bool = False) -> str:
    """An HTML table.

    Args:
        titles: the titles of the columns.
        rows: the cells of each row.
        safe: whether cells are HTML already.
    """
    head = "".join(f"<th>{escaped(title)}</th>" for title in titles)
    shown = [[str(c) if safe else escaped(str(c)) for c in row] for row in rows]
    body = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in shown)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def page(title: str, body: str) -> str:
    """A whole page as HTML, which runs no script and loads nothing."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escaped(title)}</h1>{body}</body></html>"
    )
