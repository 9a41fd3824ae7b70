"""What was measured as a table, JSON, a figure and a page; and whether ratios fell."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure, Workload, ratios

PEERS = ("torch", "torchdata", "grain", "datasets", "streaming", "litdata", "simplejpeg")
PACKAGES = ("numpy", "pyarrow", "array_record", "pillow")
_PROJECTS = {"streaming": "mosaicml-streaming"}  # whose package has another name
LOSS = 0.2  # of a ratio, at which `--check` fails


def entry(workload: Workload, figures: Mapping[str, Figure]) -> dict[str, Any]:
    """One workload's figures and ratios, as plain data."""
    found = ratios(workload, figures)
    aims = [
        {"of": mine, "to": other, "aim": aim, "found": round(found[mine][other], 3)}
        for (mine, other), aim in workload.aims.items()
        if other in figures
    ]
    return {
        "question": workload.question,
        "unit": workload.unit,
        "less": workload.less,
        "figures": {name: [round(x, 3) for x in figure] for name, figure in figures.items()},
        "ratios": {m: {o: round(x, 3) for o, x in r.items()} for m, r in found.items()},
        "aims": aims,
    }


def environment(command: str) -> dict[str, Any]:
    """The machine, the versions and the command."""
    versions = {name: _version(name) for name in (*PACKAGES, *PEERS)}
    return {
        "command": command,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": sys.version.split()[0],
        "versions": {name: version for name, version in versions.items() if version},
        "absent": [name for name in PEERS if not versions[name]],
    }


def table(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    """One workload as lines of text."""
    yield f"{name}: {found['question']} ({found['unit']})"
    for run, (median, least, most) in found["figures"].items():
        against = found["ratios"].get(run, {})
        shown = ", ".join(f"{ratio:.2f} × {other}" for other, ratio in against.items())
        yield f"  {run:24} {median:>14,.1f}  [{least:,.1f} … {most:,.1f}]  {shown}".rstrip()
    for aim in found["aims"]:
        held = "held" if aim["found"] >= aim["aim"] else "NOT held"
        yield f"  aim: {aim['of']} ≥ {aim['aim']} × {aim['to']}: {aim['found']:.2f}, {held}"


def page(results: Mapping[str, Any], figure: str) -> str:
    """The page docs/benchmarks.md."""
    about = results["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        "# Benchmarks",
        "",
        "What each workload reaches beside its peers and its limit, in one run.",
        "",
        f"Written by `{about['command']}`: {about['rounds']} rounds of every run, in turn, on "
        f"{about['machine']}, Python {about['python']}, {versions}. Figures are medians, with the "
        "least and the most of the rounds; ratios compare medians of one run and say how many "
        "times better ours is.",
        "",
        *_left_out(about["absent"]),
        f"![Ratios to each peer and limit]({figure})",
        "",
    ]
    for name, found in results["workloads"].items():
        lines += [f"## {name}", "", f"{found['question']}, in {found['unit']}.", ""]
        lines += ["| run | median | least | most | ratios |", "|---|---|---|---|---|"]
        for run, values in found["figures"].items():
            against = found["ratios"].get(run, {}).items()
            shown = ", ".join(f"{ratio:.2f} × {other}" for other, ratio in against)
            cells = " | ".join(f"{value:,.1f}" for value in values)
            lines.append(f"| {run} | {cells} | {shown} |")
        lines.append("")
        for aim in found["aims"]:
            held = "held" if aim["found"] >= aim["aim"] else "not held"
            lines += [
                f"Aim: {aim['of']} ≥ {aim['aim']} × {aim['to']}: {aim['found']:.2f}, {held}.",
                "",
            ]
    return "\n".join(lines)


def _left_out(absent: list[str]) -> list[str]:
    return [f"Not installed, so left out: {', '.join(absent)}.", ""] if absent else []


def figure(results: Mapping[str, Any]) -> str:
    """A bar for each ratio, as SVG, from the line at 1, as quick as the other: to the right where
    ours is better. The scale is logarithmic."""
    bars = [
        (f"{name}: {mine} to {other}", ratio)
        for name, found in results["workloads"].items()
        for mine, against in found["ratios"].items()
        for other, ratio in against.items()
        if ratio > 0
    ]
    far = max([abs(math.log10(ratio)) for _, ratio in bars] + [1.0])
    left, step = 12 + 7 * max(len(label) for label, _ in bars or [("", 1)]), 22
    width = left + 520
    half = (width - left - 110) / 2
    middle, height = left + 55 + half, step * len(bars) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="0" y2="{height}" stroke="#999"/>',
    ]
    for i, (label, ratio) in enumerate(bars):
        y, end = 10 + i * step, middle + half * math.log10(ratio) / far
        better = ratio >= 1
        parts += [
            f'<text x="{left - 6}" y="{y + 12}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{min(middle, end):.1f}" y="{y}" width="{abs(end - middle):.1f}" '
            f'height="15" fill="{"#4477aa" if better else "#cc6677"}"/>',
            f'<text x="{end + (4 if better else -4):.1f}" y="{y + 12}" '
            f'text-anchor="{"start" if better else "end"}">{ratio:.2f}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def lost(results: Mapping[str, Any], committed: Mapping[str, Any]) -> list[str]:
    """Ratios that fell by more than a fifth since those that were committed, in words."""
    return [
        f"{name}: {mine} was {before:.2f} × {other}, is {now:.2f}"
        for name, found in results["workloads"].items()
        for mine, against in found["ratios"].items()
        for other, now in against.items()
        for before in [_ratio(committed, name, mine, other)]
        if before is not None and now < (1 - LOSS) * before
    ]


def _ratio(results: Mapping[str, Any], name: str, mine: str, other: str) -> float | None:
    found = results["workloads"].get(name, {}).get("ratios", {})
    return found.get(mine, {}).get(other)


def write(results: Mapping[str, Any], docs: Path) -> None:
    """The JSON, the figure and the page, side by side."""
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "benchmarks.json").write_text(json.dumps(results, indent=1) + "\n")
    (docs / "benchmarks.svg").write_text(figure(results))
    (docs / "benchmarks.md").write_text(page(results, "benchmarks.svg"))


def _version(package: str) -> str:
    try:
        return metadata.version(_PROJECTS.get(package, package))
    except metadata.PackageNotFoundError:
        return ""
