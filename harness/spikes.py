"""Where a run's loss or gradient norm stands out, by its ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from harness.ledger import Entry
from harness.plan import check_known
from pipeline.debug.spikes import THRESHOLD, WINDOW, Spike, find_spikes, robust_scores

FIELDS = ("loss", "grad_norm")


def latest(entries: Iterable[Entry]) -> dict[int, Entry]:
    """The last line of each step, by rising steps: of a step done twice, the one that counts."""
    found = {entry.step: entry for entry in entries}
    return dict(sorted(found.items()))


def spikes_of(
    lines: Mapping[int, Entry], *, window: int = WINDOW, threshold: float = THRESHOLD
) -> list[Spike]:
    """The spikes of a run, see `pipeline.debug.spikes.find_spikes`."""
    return find_spikes(list(lines), _values(lines), window=window, threshold=threshold)


def excess(
    lines: Mapping[int, Entry], step: int, *, window: int = WINDOW
) -> tuple[str, float, float, float]:
    """The field that stands out most at a step: its name, value, the median before, and its score.

    The score is NaN where fewer than 10 steps stand before it.

    Raises:
        ConfigError: the ledger has no line for the step.
    """
    check_known(range(step, step + 1), lines)
    at = list(lines).index(step)
    found: list[tuple[str, float, float, float]] = []
    for name, values in _values(lines).items():
        scores, medians = robust_scores(values[: at + 1], window=window)
        found.append((name, values[at], float(medians[at]), float(scores[at])))
    return max(found, key=lambda f: -np.inf if np.isnan(f[3]) else f[3])


def _values(lines: Mapping[int, Entry]) -> dict[str, list[float]]:
    def number(entry: Entry, name: str) -> float:
        value = getattr(entry, name)
        return np.nan if value is None else value

    return {name: [number(entry, name) for entry in lines.values()] for name in FIELDS}
