"""python -m pipeline spikes RUN: steps whose loss or gradient norm stands out. Exit status 0."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pipeline.debug.journal import Run
from pipeline.debug.spikes import THRESHOLD, WINDOW, Spike, find_spikes
from pipeline.tools.commands import Answer
from pipeline.tools.commands.names import run_argument

NAME, HELP = "spikes", "steps of a run whose loss or gradient norm stands out"


def arguments(p: argparse.ArgumentParser) -> None:
    run_argument(p)
    p.add_argument("--window", type=int, default=WINDOW, help=f"steps before each ({WINDOW})")
    p.add_argument(
        "--threshold", type=float, default=THRESHOLD, help=f"least z-score ({THRESHOLD:g})"
    )


def run(args: argparse.Namespace) -> Answer:
    found = spikes_of(Run(args.run_folder), window=args.window, threshold=args.threshold)
    return Answer([spike.as_json() for spike in found], _lines(found))


def spikes_of(run: Run, *, window: int = WINDOW, threshold: float = THRESHOLD) -> list[Spike]:
    """The spikes among the steps that led to a run's current state."""
    numbers = run.columns()
    fields = {k: numbers[k] for k in ("loss", "grad_norm") if numbers[f"{k}_told"].any()}
    told = {k: numbers[f"{k}_told"] for k in fields}
    return find_spikes(numbers["step"], fields, window=window, threshold=threshold, told=told)


def _lines(found: Sequence[Spike]) -> list[str]:
    if not found:
        return ["no spikes"]
    rows = [("step", "z", "lasted", "fields")]
    for spike in found:
        size = "not finite" if spike.score is None else f"{spike.score:,.1f}"
        steps = f"{spike.lasted:,} step{'s' if spike.lasted > 1 else ''}"
        rows.append((f"{spike.step:,}", size, steps, ", ".join(map(_told(spike), spike.fields))))
    widths = [max(len(row[c]) for row in rows) for c in range(3)]
    return ["  ".join([*map(str.rjust, row[:3], widths), row[3]]) for row in rows]


def _told(spike: Spike):  # type: ignore[no-untyped-def]
    def told(name: str) -> str:
        value, before = spike.values[name], spike.before[name]
        was = "" if before is None else f" after {before:.4g}"
        return f"{name} {'not finite' if value is None else f'{value:.4g}'}{was}"

    return told
