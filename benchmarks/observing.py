"""What it costs to look: stats against none, tracing against none, in CPU seconds.

Both sides alternate in one process, without workers, so that all that is spent is counted. Rows are
small (a map of 10 microseconds), batches are of 64 rows: harder than most training.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import pipeline.nodes.leaf
import pipeline.nodes.mapped
from pipeline import Dataset, Loader
from pipeline.debug.trace import Trace
from pipeline.meter import METER, Meter

ROUNDS, BATCHES = 60, 100


class Off(Meter):
    """A meter that measures nothing."""

    def timed(self, stage: str, call: Any, *args: Any) -> Any:
        return call(*args)

    def add(self, stage: str, rows: int, size: int, seconds: float) -> None: ...


def work(row: dict[str, Any]) -> dict[str, Any]:
    return {"x": row["x"] + sum(range(800))}


def spent(trace: bool, meter: Meter) -> float:
    for module in (pipeline.nodes.leaf, pipeline.nodes.mapped):
        vars(module)["METER"] = meter
    loader = Loader(Dataset({"x": np.arange(100_000)}, seed=1).shuffle().map(work).repeat(), 64)
    traced = Trace()
    if trace:
        loader = traced.of(loader)
    batches = traced.batches(loader) if trace else iter(loader)
    next(batches)
    began = time.process_time()
    for _ in range(BATCHES):
        next(batches)
    return time.process_time() - began


def main() -> None:
    sides = {"no stats": (False, Off()), "stats": (False, METER), "tracing": (True, METER)}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            found[name].append(spent(*side))
    for name, seconds in found.items():
        print(f"{name:10} {np.median(seconds) / BATCHES * 1e6:8.1f} us of CPU a batch")
    print(f"stats cost {over(found['stats'], found['no stats']):.1%}, ", end="")
    print(f"tracing {over(found['tracing'], found['stats']):.1%} more")


def over(one: list[float], other: list[float]) -> float:
    """The median of how much more one took than the other beside it."""
    return float(np.median(np.array(one) / np.array(other))) - 1


if __name__ == "__main__":
    main()
