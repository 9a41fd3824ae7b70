"""A profile as a page: bars for the time of each stage and for what each change would bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.picture import escaped, page, table

if TYPE_CHECKING:
    from pipeline.debug.counterfactual import Explained


def page_of(found: Explained) -> str:
    """The page, whole."""
    stats = found.stats
    total = sum(s.seconds for s in stats.stages) or 1.0
    stages = [
        (
            _named(s.name, found.limit),
            f"{s.rows:,}",
            f"{s.seconds:.3f}",
            _bar(s.seconds / total, f"{s.seconds / total:.0%}", s.name == found.limit),
            f"{s.seconds / s.rows * 1e6:.1f}" if s.rows else "",
        )
        for s in stats.stages
    ]
    most = max((c.gain for c in found.counterfactuals), default=1.0) or 1.0
    gains = [
        (
            _named(c.change, c.change if c.name == found.limit else ""),
            f"{c.rate:,.0f}",
            _bar(c.gain / most, f"{c.gain:.2f} x", c.name == found.limit),
        )
        for c in found.counterfactuals
    ]
    advice = "".join(f"<p>{escaped(text)}</p>" for text in found.advice)
    failed = "".join(f"<li>{escaped(text)}</li>" for text in found.failed)
    missing = f"<h2>Not measured</h2><ul>{failed}</ul>" if failed else ""
    first = f"{found.rate:,.0f} rows/s as it is, with {stats.workers or 'no'} workers."
    times = table(("stage", "rows", "seconds", "share", "\u00b5s a row"), stages, safe=True)
    measured = table(("change, measured", "rows/s", "gain"), gains, safe=True)
    return page(
        f"profile: limited by {found.limit}",
        f"<p>{escaped(first)}</p>{advice}<h2>What each change would bring</h2>{measured}"
        f"<h2>Where time goes</h2>{times}{missing}"
        f'<h2>The dataset</h2><div class="scroll">{found.drawing}</div>',
    )


def _named(text: str, limit: str) -> str:
    return f'<span class="limit">{escaped(text)}</span>' if text == limit else escaped(text)


def _bar(share: float, text: str, limit: bool) -> str:
    kind = "bars limit" if limit else "bars"
    bar = f'<div class="bar" style="--share:{min(1.0, share):.4f}"></div>'
    return f'<div class="{kind}">{bar}{escaped(text)}</div>'
