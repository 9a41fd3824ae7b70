"""Rows of a saved Hugging Face dataset (Arrow): a text, a number and an array each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Workload, installed, rate
from benchmarks.peers import torch_loader
from pipeline import Dataset, Loader

COUNT, BATCH, WIDTH = 100_000, 128, 64


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Rows a second, shuffled; the limit is Arrow's own `take` of as many rows at a time."""
    if not installed("datasets"):
        return
    import datasets

    datasets.disable_progress_bars()
    count, most = max(20_000, int(COUNT * size)), max(20, int(700 * size))
    rng = np.random.default_rng(0)
    saved = datasets.Dataset.from_dict(
        {
            "text": [f"document {i} says to be or not to be" for i in range(count)],
            "label": np.arange(count),
            "tokens": list(rng.integers(0, 50_000, (count, WIDTH), np.int32)),
        }
    )
    saved.save_to_disk(str(folder / "saved"))

    def ours() -> float:
        loader = Loader(Dataset(str(folder / "saved"), seed=1).shuffle(), BATCH)
        return rate(loader, BATCH, warm=20, most=most)

    def limit() -> float:
        saved: Any = datasets.load_from_disk(str(folder / "saved"))
        table, order = saved.data.table, rng.permutation(count)
        spans = (order[i * BATCH : (i + 1) * BATCH] for i in range(count // BATCH))
        return rate((table.take(span) for span in spans), BATCH, warm=20, most=most)

    runs: dict[str, Callable[[], float]] = {
        "lockstep": ours,
        "datasets": lambda: _datasets(folder, most),
        **({"torch over datasets": lambda: _torch(folder, most)} if installed("torch") else {}),
        "limit": limit,
    }
    what = f"{count:,} saved rows: text, number, 64 tokens → shuffle → batch {BATCH}"
    yield Workload("Arrow rows", what, "rows/s", runs)


def _opened(folder: Path) -> Any:
    import datasets

    return datasets.load_from_disk(str(folder / "saved")).with_format("numpy")


def _datasets(folder: Path, most: int) -> float:
    batches = _opened(folder).shuffle(seed=1).iter(BATCH)
    return rate(batches, BATCH, warm=8, most=most // 4)


def _torch(folder: Path, most: int) -> float:
    loader = torch_loader(_opened(folder), BATCH, collate=lambda rows: rows)
    return rate(loader, BATCH, warm=8, most=most // 4)
