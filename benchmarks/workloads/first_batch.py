"""How soon the first batch is there: of a new loader, after a seek, and after a resume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Workload, installed, milliseconds
from pipeline import Dataset, Loader

BATCH, STEPS = 64, (10**3, 10**6, 10**9)


def _row(x: int) -> dict[str, int]:
    return {"x": x, "s": sum(range(2000))}


def _dataset() -> Dataset:
    return Dataset(range(200_000), seed=1).shuffle().map(_row).repeat()


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Milliseconds until the first batch, serial and with two processes."""

    def first(workers: Any) -> float:
        with Loader(_dataset(), BATCH, workers=workers) as loader:
            return milliseconds(lambda: next(loader))

    runs = {"lockstep 2 processes": lambda: first(2), "serial": lambda: first(0), **_torch()}
    aims = {("lockstep 2 processes", "torch"): 1.0}
    what = "construction to the first batch of 64 rows of 20 µs"
    yield Workload("first batch", what, "ms", runs, aims, less=True)

    def resumed(step: int, workers: Any) -> float:
        with Loader(_dataset(), BATCH, workers=workers) as loader:
            loader.seek(step)
            state = loader.state_dict()
        with Loader(_dataset(), BATCH, workers=workers) as loader:
            next(loader)
            return milliseconds(lambda: (loader.load_state_dict(state), next(loader)))

    resumes = {
        f"lockstep step 10^{len(str(step)) - 1}{how}": lambda s=step, w=w: resumed(s, w)
        for step in STEPS
        for w, how in ((0, ""), (2, ", 2 processes"))
    }
    yield Workload("resume", "load_state_dict and the next batch", "ms", resumes, less=True)


def _torch() -> dict[str, Any]:
    if not installed("torch"):
        return {}
    import torch

    class Rows(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 200_000

        def __getitem__(self, i: int) -> Any:
            return _row(i)

    def run() -> float:
        loader = torch.utils.data.DataLoader(Rows(), BATCH, shuffle=True, num_workers=2)
        return milliseconds(lambda: next(iter(loader)))

    return {"torch": run}
