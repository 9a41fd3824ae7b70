"""Which stage an accelerator would wait for: runs a dataset for some seconds, with a clock."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from pipeline.dataset import Dataset
from pipeline.errors import need
from pipeline.loader import Loader
from pipeline.workers.stats import Stats


def profile(
    data: Dataset | Loader, *, seconds: float = 5.0, batch: int = 128, workers: Any = 0
) -> Stats:
    """A loader's stats after running it for some seconds, or to its end.

    Args:
        data: a Loader, or a Dataset to be loaded in batches of `batch` by `workers`.
        seconds: how long, from the first batch on.
        batch, workers: for a Dataset.

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


def as_json(stats: Stats) -> dict[str, Any]:
    """The figures as plain data, with the limiting stage named."""
    return {**asdict(stats), "limit": stats.limit}


def show(stats: Stats) -> None:
    """Print the figures as a table.

    Raises:
        MissingExtraError: rich is not installed.
    """
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError as e:
        raise need("report", "rich") from e
    table = Table(caption=_caption(stats), caption_justify="left")
    table.add_column("stage")
    for name in ("rows", "MB", "seconds", "share", "µs a row"):
        table.add_column(name, justify="right")
    total = sum(stage.seconds for stage in stats.stages) or 1.0
    for stage in stats.stages:
        table.add_row(
            f"{stage.name}  <- the limit" if stage.name == stats.limit else stage.name,
            f"{stage.rows:,}",
            f"{stage.bytes / 1e6:,.1f}" if stage.bytes else "",
            f"{stage.seconds:.3f}",
            f"{stage.seconds / total:.0%}",
            f"{stage.seconds / stage.rows * 1e6:.1f}" if stage.rows else "",
        )
    Console().print(table)


def _caption(s: Stats) -> str:
    rate = s.rows / s.seconds if s.seconds else 0.0
    lines = [f"{s.rows:,} rows in {s.seconds:.2f} s: {rate:,.0f} rows/s. Limit: {s.limit}."]
    if s.workers:
        lines.append(
            f"{s.workers} workers, busy {s.occupancy:.0%}, {s.restarts} replaced; "
            f"{s.ready} results ({s.ready_bytes / 1e6:.1f} MB) ready."
        )
    return "\n".join(lines)
