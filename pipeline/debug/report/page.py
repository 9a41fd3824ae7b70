"""The page of runs: one file with everything in it, which asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from pipeline.debug.report.curves import Curves
from pipeline.debug.report.figures import PLACEHOLDERS, bokeh_script, figures


def policy(scripts: Sequence[str], *, live: bool) -> str:
    """The content security policy: these scripts and no other, and no network but a live server.

    >>> policy(["1"], live=False)
    "default-src 'none'; script-src 'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s='; \
style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    """
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    own = " 'self'" if live else ""
    connect = "connect-src 'self'; " if live else ""
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        f"img-src data:{own}; {connect}base-uri 'none'; form-action 'none'"
    )


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def scripts() -> list[str]:
    """The page's scripts: Bokeh's and its own."""
    return [bokeh_script().replace("</script", "<\\/script"), _file("page.js")]


def _file(name: str) -> str:
    return (resources.files("pipeline.debug.report") / name).read_text(encoding="utf-8")


def page(
    runs: Sequence[Curves],
    *,
    folder: str,
    embedded: dict[int, Any],
    note: str,
    live: bool = False,
) -> str:
    """The page's HTML.

    Args:
        runs: whose curves; the first one's steps are shown.
        folder: of the first run, for the commands that the page names.
        embedded: step -> its line and rows, as far as they are in the page.
        note: which records' texts the page holds.
        live: whether a server behind the page answers for any step.
    """
    first = runs[0]
    steps = first.step.tolist() or [0]
    spikes = [spike.step for spike in first.spikes]
    data = {
        "figure": figures(runs),
        "placeholders": PLACEHOLDERS,
        "embedded": {str(step): about for step, about in embedded.items()},
        "first": min(steps),
        "last": max(steps),
        "live": live,
        "folder": folder,
        "shown": next((s for s in spikes if live or s in embedded), _shown(embedded, live, steps)),
    }
    title = html.escape(" and ".join(run.name for run in runs))
    body = [
        f"<h1>{title}</h1>",
        *(_summary(i, run) for i, run in enumerate(runs)),
        '<div id="curves" role="img" aria-label="curves over steps"></div>',
        "<p class=soft>Triangles are spikes; dashed lines are restarts; grey bands are data that "
        "was passed over; ticks at the lower edge of the loss are checkpoints.</p>",
        *(_tables(run) for run in runs),
        "<h2>Steps</h2>",
        f"<p class=soft>{html.escape(note)}</p>",
        _chooser(spikes, embedded, min(steps), max(steps), live),
        '<section id="rows" aria-live="polite"></section>',
    ]
    parts = scripts()
    plain = json.dumps(data, allow_nan=False).replace("<", "\\u003c")  # ends no script, begins none
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy" '
            f'content="{html.escape(policy(parts, live=live))}">',
            '<link rel="icon" href="data:,">',
            f"<title>{title}</title><style>{_file('page.css')}</style></head><body>",
            *body,
            f'<script type="application/json" id="data">{plain}</script>',
            *(f"<script>{script}</script>" for script in parts),
            "</body></html>",
        ]
    )


def _shown(embedded: dict[int, Any], live: bool, steps: list[int]) -> int | None:
    return steps[0] if live else min(embedded, default=None)


def _summary(i: int, run: Curves) -> str:
    n = len(run.step)
    span = f"steps {run.step[0]:,} to {run.step[-1]:,}" if n else "no step yet"
    spikes, restarts = (
        f"{n} {what}{'' if n == 1 else 's'}"
        for n, what in ((len(run.spikes), "spike"), (len(run.restarts), "restart"))
    )
    sampled = f"; one of {run.left_out} stretches of 256 steps was read" if run.left_out > 1 else ""
    told = f"{html.escape(run.name)}: {span}, {spikes}, {restarts}{sampled}"
    return f'<p><span class="key key{i % 4}"></span>{told}</p>'


def _tables(run: Curves) -> str:
    parts: list[str] = []
    if run.spikes:
        rows = "".join(
            f"<tr><td>{s.step:,}</td><td>{'not finite' if s.score is None else f'{s.score:,.1f}'}"
            f"</td><td>{s.lasted:,}</td><td>{html.escape(', '.join(s.fields))}</td></tr>"
            for s in run.spikes[:50]
        )
        head = "<tr><th>step</th><th>z-score</th><th>steps</th><th>of</th></tr>"
        parts.append(f"<h2>Spikes of {html.escape(run.name)}</h2>")
        parts.append(f'<div class="scroll"><table>{head}{rows}</table></div>')
    if run.skips:
        told = "; ".join(f"{a:,} to {b - 1:,} before step {s:,}" for s, a, b in run.skips[:20])
        parts.append(f"<p>Data steps passed over: {told}</p>")
    if run.stages:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td><meter value='{share:.4f}'></meter></td>"
            f"<td>{share:.1%}</td></tr>"
            for name, share in run.stages
        )
        parts.append(f"<h2>Where the time of {html.escape(run.name)}'s data went</h2>")
        parts.append(f'<div class="scroll"><table>{rows}</table></div>')
    return "".join(parts)


def _chooser(spikes: list[int], embedded: dict[int, Any], first: int, last: int, live: bool) -> str:
    steps = sorted({*embedded, *(spikes[:50] if live else ())})
    marked = set(spikes)
    buttons = "".join(
        f'<button type="button" data-step="{s}"'
        f"{' class=spike' if s in marked else ''}>{s:,}{' spike' if s in marked else ''}</button>"
        for s in steps
    )
    slider = (
        f'<div class="slider"><label for="slider">step</label>'
        f'<input id="slider" type="range" min="{first}" max="{last}" value="{first}">'
        f'<input id="number" type="number" aria-label="step" min="{first}" max="{last}" '
        f'value="{first}"></div>'
    )
    return f'<div class="steps">{buttons}</div>{slider if live or embedded else ""}'
