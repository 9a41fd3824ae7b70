"""Running a dataset for some seconds, to find the stage that an accelerator would wait for."""

from __future__ import annotations

import time
from typing import Any

from pipeline.dataset import Dataset
from pipeline.loader import Loader
from pipeline.workers.stats import Stats


def profile(
    data: Dataset | Loader, *, seconds: float = 5.0, batch: int = 128, workers: Any = 0
) -> Stats:
    """A loader's stats after running it for some seconds, or to the end of its pass.

    Args:
        data: a Loader; or a Dataset, which is loaded with `batch` and `workers`.
        seconds: how long, from the first batch on.
        batch, workers: as for `Loader`.

    >>> slow = Dataset(range(100)).map(lambda x: sum(range(10_000)) + x, name="sum")
    >>> stats = profile(slow, batch=10)
    >>> stats.rows, stats.limit
    (100, "stage 0: map 'sum'")
    """
    own = isinstance(data, Dataset)
    loader = Loader(data, batch, workers=workers) if isinstance(data, Dataset) else data
    try:
        next(loader, None)
        end = time.monotonic() + seconds
        epoch = loader.epoch
        while time.monotonic() < end and loader.epoch == epoch and next(loader, None) is not None:
            pass
        return loader.stats()
    finally:
        if own:
            loader.close()
