"""Rows of Python: a shuffled range through one function, in batches of 128."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Workload, installed, rate
from pipeline import Dataset, Loader

N, BATCH = 200_000, 128


def _plus(x: int) -> int:
    return x + 1


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Rows a second, serial."""
    most = max(20, int(6000 * size))

    def ours() -> float:
        ds = Dataset(range(N), seed=1).shuffle().map(_plus)
        return rate(_passes(Loader(ds, BATCH)), BATCH, warm=20, most=most)

    def limit() -> float:
        parts = [list(range(i * BATCH, (i + 1) * BATCH)) for i in range(most + 20)]
        return rate((np.array(list(map(_plus, part))) for part in parts), BATCH, warm=20, most=most)

    runs = {"lockstep": ours, **_peers(most), "limit": limit}
    aims = {("lockstep", "torch"): 1.5, ("lockstep", "grain"): 30.0}
    yield Workload(
        "rows", "range(200,000) → shuffle → map(x + 1) → batch 128, serial", "rows/s", runs, aims
    )


def _passes(loader: Iterable[Any]) -> Iterator[Any]:
    # one pass is over in a twentieth of a second
    return chain.from_iterable(repeat(loader))


def _peers(most: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if installed("torch"):
        found["torch"] = lambda: _torch(most, lambda indices: [i + 1 for i in indices])
        found["torch, calling it"] = lambda: _torch(most, lambda some: list(map(_plus, some)))
    if installed("grain"):
        found["grain"] = lambda: _grain(max(40, most // 10))
    return found


def _torch(most: int, rows: Callable[[list[int]], list[int]]) -> float:
    import torch

    class Rows(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return N

        def __getitem__(self, i: int) -> int:
            return _plus(i)

        def __getitems__(self, indices: list[int]) -> list[int]:  # many at a time: its best
            return rows(indices)

    loader = torch.utils.data.DataLoader(
        Rows(), BATCH, shuffle=True, collate_fn=lambda rows: torch.as_tensor(rows)
    )
    return rate(_passes(loader), BATCH, warm=20, most=most)


def _grain(most: int) -> float:
    import grain  # pyright: ignore[reportMissingImports]

    ds = grain.MapDataset.range(N).shuffle(seed=1).map(_plus).batch(BATCH)
    return rate(ds, BATCH, warm=40, most=most)  # past what it read ahead
