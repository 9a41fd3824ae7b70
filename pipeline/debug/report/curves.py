"""The numbers of a run's page: curves that fit a screen, and what is marked on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.debug.journal.index import GROUP
from pipeline.debug.journal.reading import Run
from pipeline.debug.spikes import Spike, find_spikes

POINTS = 3000  # of a curve: more than a screen is wide
READ = 2_000_000  # lines that are read at most: of longer runs stretches are left out
CURVES = {
    "loss": "loss",
    "grad_norm": "gradient norm",
    "rows_per_second": "rows a second",
    "stall": "share of time waiting for data",
}


@dataclass(frozen=True)
class Curves:
    """One run's numbers.

    Attributes:
        name: of the run.
        step: int64[n].
        values: name -> float64[n], NaN where nothing was told.
        spikes: of loss and gradient norm.
        skips: data steps that were passed over, as (training step behind them, first, end).
        restarts: first steps of its later starts.
        saves: steps before which a checkpoint was saved.
        stages: (name, share of the time spent on data).
        workers: (step, share of the time that workers were busy).
        left_out: one of how many stretches of 256 steps was read.
    """

    name: str
    step: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    spikes: list[Spike]
    skips: list[tuple[int, int, int]]
    restarts: list[int]
    saves: list[int]
    stages: list[tuple[str, float]]
    workers: list[tuple[int, float]]
    left_out: int

    def thinned(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """A curve of at most a few thousand points: of each stretch the least and the largest."""
        step, value = self.step, self.values[name]
        known = np.flatnonzero(np.isfinite(value))
        if len(known) > POINTS:
            parts = np.array_split(known, POINTS // 2)
            ends = [(p[value[p].argmin()], p[value[p].argmax()]) for p in parts]
            known = np.unique(np.array(ends).ravel())
        return step[known], value[known]


def curves_of(run: Run, *, window: int, threshold: float, most: int = READ) -> Curves:
    """A run's curves and marks.

    Args:
        run: whose.
        window, threshold: of spikes, see `find_spikes`.
        most: lines to read; of a longer run only some stretches of 256 steps are.
    """
    every = max(1, -(-len(run.ledger) // most))
    found = run.columns(every=every)
    seconds = found["data"] + found["step_seconds"] + found["save"]
    with np.errstate(divide="ignore", invalid="ignore"):
        rate, stall = found["rows"] / seconds, found["data"] / seconds
    told = {k: found[k] for k in ("loss", "grad_norm") if found[f"{k}_told"].any()}
    has = {k: found[f"{k}_told"] for k in told}
    step = found["step"]
    if len(step):
        rate[0] = stall[0] = np.nan  # the first step bears what comes once
    return Curves(
        name=run.folder.resolve().name,
        step=step,
        values={**told, "rows_per_second": rate, "stall": stall},
        spikes=find_spikes(step, told, window=window, threshold=threshold, told=has),
        skips=_skips(found) if every == 1 else [],
        restarts=[x["step"] for x in run.launches[1:] if isinstance(x.get("step"), int)],
        saves=step[found["save"] > 0].tolist(),
        stages=_stages(run),
        workers=_workers(run),
        left_out=every,
    )


def _skips(found: dict[str, Any]) -> list[tuple[int, int, int]]:
    step, first, end = found["step"], found["data_step"], found["data_end"]
    jumps = np.flatnonzero(first[1:] > end[:-1]) + 1
    return [(int(step[i]), int(end[i - 1]), int(first[i])) for i in jumps[:GROUP]]


def _stages(run: Run) -> list[tuple[str, float]]:
    # of all starts together: each counts from its own beginning, so its last note has it all
    last = {noted.launch: noted.stats for noted in run.noted if noted.stats}
    sums: dict[str, float] = {}
    for stats in last.values():
        for name, seconds in stats.get("stages", []):
            sums[name] = sums.get(name, 0.0) + seconds
    total = sum(sums.values()) or 1.0
    return [(name, seconds / total) for name, seconds in sums.items()]


def _workers(run: Run) -> list[tuple[int, float]]:
    shares: list[tuple[int, float]] = []
    before: Any = None
    for noted in run.noted:
        stats = noted.stats
        if stats and before and before.launch == noted.launch and stats.get("workers"):
            spent = stats["seconds"] - before.stats["seconds"]
            if spent > 0:
                busy = (stats["busy"] - before.stats["busy"]) / spent / stats["workers"]
                line = run.ledger.ending_at(noted.step)
                shares.append((line.step if line else 0, min(1.0, max(0.0, busy))))
        before = noted if stats else None
    return shares
