"""Packing documents into rows of 2,048 tokens, in each way of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from benchmarks.measure import Workload, rate
from pipeline import Dataset, Loader

LENGTH, BATCH = 2048, 8


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Packed rows a second; the limit copies the tokens once."""
    most, rng = max(10, int(200 * size)), np.random.default_rng(0)
    sizes = np.clip(rng.lognormal(5.8, 0.9, 20_000).astype(int), 8, LENGTH)
    documents = [np.arange(n, dtype=np.int32) for n in sizes]

    def ours(how: Any) -> float:
        ds = Dataset(documents, seed=1).shuffle().repeat().pack(LENGTH, how=how)
        return rate(Loader(ds, BATCH), BATCH, warm=4, most=most)

    def limit() -> float:
        row = np.zeros((BATCH, LENGTH), np.int32)
        source = np.ones((BATCH, LENGTH), np.int32)
        return rate(
            (row.__setitem__(slice(None), source) for _ in range(most + 4)),
            BATCH,
            warm=4,
            most=most,
        )

    hows = cast("tuple[Literal['split'], ...]", ("split", "first_fit", "best_fit"))
    runs = {f"lockstep {how}": lambda h=how: ours(h) for how in hows}
    what = "documents of about 500 tokens → rows of 2,048 → batch 8"
    yield Workload("packing", what, "rows/s", {**runs, "limit": limit})
