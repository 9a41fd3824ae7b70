"""The picture of both walks, from what they left: curves of before and after, spikes marked.

python examples/spike/walk.py runs/spike
python examples/torch_spike.py runs/torch-spike
python examples/spike/picture.py runs/spike runs/torch-spike -o docs/pictures/spike.svg
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from pipeline.debug.journal import Run
from pipeline.debug.journal.ledger import read
from pipeline.debug.spikes import find_spikes

WIDTH, HEIGHT, GAP = 400, 170, 40  # of a panel's plot, and between two
BAD, GOOD = "#c62828", "#2e7d32"
TITLE = "Loss spikes, and the same runs without the records that made them"


@dataclass(frozen=True)
class Curve:
    """A run's values by step, and the steps that stand out."""

    name: str
    color: str
    step: np.ndarray
    value: np.ndarray
    peaks: list[int]


def curve(name: str, color: str, step: np.ndarray, value: np.ndarray) -> Curve:
    spikes = find_spikes(step, {"value": value}, threshold=8)
    return Curve(name, color, step, value, [spike.peak for spike in spikes])


def of_walk(folder: Path) -> list[Curve]:
    """The gradient norm of the run with bad documents, and of its fork without them."""
    found: list[Curve] = []
    for name, color in (("spiked", BAD), ("mended", GOOD)):
        numbers = Run(folder / name).columns()
        found.append(curve(name, color, numbers["step"], numbers["grad_norm"]))
    return found


def of_torch(folder: Path) -> list[Curve]:
    """The loss of the loop's two starts: the second went back, and left the record out."""
    lines, found = read(folder / "ledger.jsonl"), list[Curve]()
    for launch, name, color in ((0, "first", BAD), (1, "again, without the record", GOOD)):
        part = [line for line in lines if line.launch == launch]
        values = np.array([line.loss_value for line in part])
        found.append(curve(name, color, np.array([line.step for line in part]), values))
    return found


def panel(title: str, axis: str, curves: list[Curve], left: int) -> str:
    """One plot: the good curve lies over the bad one."""
    top, bottom = 52, 52 + HEIGHT
    last = max(int(c.step[-1]) for c in curves)
    high = max(float(np.nanmax(c.value)) for c in curves) * 1.05

    def at(step: float, value: float) -> str:
        return f"{left + step / last * WIDTH:.1f},{bottom - value / high * HEIGHT:.1f}"

    parts = [
        f'<text x="{left}" y="26" font-weight="600">{escape(title)}</text>',
        f'<path d="M{left},{top} V{bottom} H{left + WIDTH}" fill="none" stroke="#90a4ae"/>',
        f'<text x="{left}" y="44" font-size="12" fill="#546e7a">{axis}, up to {high:.2g}</text>',
        f'<text x="{left + WIDTH}" y="{bottom + 18}" font-size="12" fill="#546e7a" '
        f'text-anchor="end">step {last}</text>',
    ]
    for i, c in enumerate(curves):
        points = " ".join(at(s, v) for s, v in zip(c.step, c.value, strict=True))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{c.color}" stroke-width="1.5"/>'
        )
        for step in c.peaks:
            x, y = at(step, float(c.value[c.step == step][0])).split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="{c.color}"/>')
            parts.append(f'<text x="{x}" y="{y}" dx="7" dy="5" font-size="12">{step}</text>')
        words = f"{c.name}: {len(c.peaks) or 'no'} spike{'s' * (len(c.peaks) != 1)}"
        parts.append(
            f'<text x="{left + 8 + 110 * i}" y="{bottom + 18}" font-size="12" '
            f'fill="{c.color}">{escape(words)}</text>'
        )
    return "\n".join(parts)


def picture(walk: Path, torch: Path) -> str:
    """Both panels as SVG."""
    width, height = 2 * WIDTH + GAP + 32, HEIGHT + 82
    panels = [
        panel("make spike: the trainer", "gradient norm", of_walk(walk), 16),
        panel("torch_spike.py: a plain PyTorch loop", "loss", of_torch(torch), 16 + WIDTH + GAP),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="14" fill="#212121" role="img" '
        f'aria-label="{TITLE}">\n<title>{TITLE}</title>\n'
        f'<rect width="{width}" height="{height}" fill="#fff" rx="6"/>\n'
        + "\n".join(panels)
        + "\n</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="The picture of both walks.")
    parser.add_argument("walk", type=Path, help="what examples/spike/walk.py left")
    parser.add_argument("torch", type=Path, help="what examples/torch_spike.py left")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.write_text(picture(args.walk, args.torch), encoding="utf-8")


if __name__ == "__main__":
    main()
