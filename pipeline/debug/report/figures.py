"""A run's curves as Bokeh figures, as JSON that the page's script draws.

Colours are placeholders, which the page replaces: by those of a light or of a dark screen.
"""

# pyright: reportMissingImports=false
# Bokeh comes with the extra "report"

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from pipeline.debug.report.curves import CURVES, Curves
from pipeline.debug.spikes import Spike
from pipeline.errors import need

INK, LINES, MARK, CALM = "#010101", "#020202", "#030303", "#040404"
RUNS = ("#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04")
PLACEHOLDERS = {"ink": INK, "lines": LINES, "mark": MARK, "calm": CALM} | {
    f"run{i}": colour for i, colour in enumerate(RUNS)
}


def bokeh_script() -> str:
    """Bokeh's own script, to be put into the page.

    Raises:
        MissingExtraError: Bokeh is not installed.
    """
    _need()
    from bokeh.resources import Resources

    return "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)


def figures(runs: Sequence[Curves]) -> Any:
    """The figures of runs, one above the other, with one axis of steps: JSON for `embed_item`."""
    _need()
    from bokeh.embed import json_item
    from bokeh.layouts import column
    from bokeh.models import DataRange1d

    shared = DataRange1d(range_padding=0.02)
    known = [k for k in CURVES if any(k in run.values for run in runs)]
    plots = [_figure(name, runs, shared) for name in known]
    if any(run.workers for run in runs):
        plots.append(_workers(runs, shared))
    parts = [*plots, _brush(runs, shared, known[0])] if known else plots
    return json_item(column(*parts, sizing_mode="stretch_width"))


def _need() -> None:
    if find_spec("bokeh") is None:
        raise need("report", "bokeh")


def _plain(title: str, **options: Any) -> Any:
    from bokeh.plotting import figure

    plot = figure(
        title=title,
        sizing_mode="stretch_width",
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=LINES,
        min_border_left=64,
        **options,
    )
    heading: Any = plot.title
    heading.text_color = INK
    plot.grid.grid_line_color = LINES
    for axis in plot.axis:
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_line_color = axis.major_tick_line_color = axis.minor_tick_line_color = LINES
    plot.toolbar.logo = None
    return plot


def _figure(name: str, runs: Sequence[Curves], shared: Any) -> Any:
    from bokeh.models import BoxAnnotation, HoverTool, Span

    plot = _plain(
        CURVES[name],
        height=190,
        x_range=shared,
        tools="xbox_zoom,xpan,xwheel_zoom,tap,reset",
        active_drag="xbox_zoom",
        name="curve",
    )
    plot.toolbar.autohide = True
    lines: list[Any] = []
    for i, run in enumerate(runs):
        if name not in run.values:
            continue
        step, value = run.thinned(name)
        colour = RUNS[i % len(RUNS)]
        lines.append(plot.line(step, value, color=colour, line_width=1.6))
        at = [s for s in run.spikes if name in s.fields]
        known = [s for s in at if s.values[name] is not None]
        plot.scatter(
            *_tops(run, name, known),
            marker="inverted_triangle",
            size=11,
            color=MARK,
        )
        for spike in at:
            if spike.values[name] is None:
                plot.add_layout(_line(Span, spike.step, MARK, "solid"))
        for step_, _, _ in run.skips:
            plot.add_layout(
                BoxAnnotation(left=step_ - 0.5, right=step_ + 0.5, fill_color=CALM, fill_alpha=0.35)
            )
        for step_ in run.restarts:
            plot.add_layout(_line(Span, step_, colour, "dashed"))
    if name == "loss":
        for i, run in enumerate(runs):
            _saves(plot, run, RUNS[i % len(RUNS)])
    plot.add_tools(
        HoverTool(
            renderers=lines, mode="vline", tooltips=[("step", "$x{0,0}"), (name, "$y{0.000}")]
        )
    )
    return plot


def _line(span: Any, step: float, colour: str, dash: str) -> Any:
    return span(
        location=step, dimension="height", line_color=colour, line_dash=dash, line_alpha=0.7
    )


def _saves(plot: Any, run: Curves, colour: str) -> None:
    # a tick at the lower edge for each checkpoint
    from bokeh.models import ColumnDataSource, Scatter

    _, value = run.thinned("loss") if "loss" in run.values else ([], [])
    if run.saves and len(value):
        low = [float(min(value))] * len(run.saves)
        source = ColumnDataSource({"x": run.saves[:2000], "y": low[:2000]})
        plot.add_glyph(
            source, Scatter(x="x", y="y", marker="dash", angle=1.5708, line_color=colour)
        )


def _workers(runs: Sequence[Curves], shared: Any) -> Any:
    plot = _plain("workers: share of their time that they were busy", height=150, x_range=shared)
    plot.y_range.start, plot.y_range.end = 0, 1.05
    for i, run in enumerate(runs):
        steps, shares = [s for s, _ in run.workers], [x for _, x in run.workers]
        plot.step(steps, shares, color=RUNS[i % len(RUNS)], mode="before", line_width=1.6)
    return plot


def _tops(run: Curves, name: str, spikes: Sequence[Spike]) -> tuple[list[int], list[float]]:
    # of each spike the curve's highest point
    tops: list[int] = []
    for spike in spikes:
        first, end = np.searchsorted(run.step, [spike.step, spike.step + spike.lasted])
        tops.append(int(first + np.nanargmax(run.values[name][first:end])))
    return run.step[tops].tolist(), run.values[name][tops].tolist()


def _brush(runs: Sequence[Curves], shared: Any, name: str) -> Any:
    from bokeh.models import RangeTool

    plot = _plain("all steps: drag to choose some", height=110, tools="")
    for i, run in enumerate(runs):
        if name in run.values:
            plot.line(*run.thinned(name), color=RUNS[i % len(RUNS)])
    tool = RangeTool(x_range=shared)
    tool.overlay.fill_color, tool.overlay.fill_alpha = CALM, 0.25
    plot.add_tools(tool)
    plot.toolbar_location = None
    plot.yaxis.visible = False
    plot.xaxis.axis_label = "step"
    return plot
