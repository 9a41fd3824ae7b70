"""How soon the first batch is there: of a new loader, after a seek, and after a resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Workload, installed, milliseconds
from benchmarks.peers import grain_batches, torch_loader
from pipeline import Dataset, Loader

BATCH, STEPS = 64, tuple(10**k for k in range(3, 10))


def _row(x: int) -> dict[str, int]:
    return {"x": x, "s": sum(range(2000))}


def _dataset() -> Dataset:
    return Dataset(range(200_000), seed=1).shuffle().map(_row).repeat()


def workloads(folder: Path, size: float) -> Iterator[Workload]:
    """Milliseconds until the first batch, serial and with two processes."""

    def first(workers: Any) -> float:
        with Loader(_dataset(), BATCH, workers=workers) as loader:
            return milliseconds(lambda: next(loader))

    runs = {"lockstep 2 processes": lambda: first(2), "serial": lambda: first(0), **_first()}
    aims = {("lockstep 2 processes", "torch"): 1.0}
    what = "construction to the first batch of 64 rows of 20 µs, 2 processes"
    yield Workload("first batch", what, "ms", runs, aims, less=True)

    def resumed(step: int, workers: Any) -> float:
        with Loader(_dataset(), BATCH, workers=workers) as loader:
            loader.seek(step)
            state = loader.state_dict()
        with Loader(_dataset(), BATCH, workers=workers) as loader:
            return milliseconds(lambda: (loader.load_state_dict(state), next(loader)))

    resumes: dict[str, Callable[[], float]] = {
        f"lockstep step 10^{len(str(step)) - 1}{how}": lambda s=step, w=w: resumed(s, w)
        for step in STEPS
        for w, how in ((0, ""), (2, ", 2 processes"))
    }
    first_of, theirs = "lockstep step 10^3, 2 processes", _resumed()
    aims = {(first_of, name): 1.0 for name in theirs}
    what = "a new loader takes a state and gives the next batch; peers at step 10^3, 2 processes"
    yield Workload("resume", what, "ms", {**resumes, **theirs}, aims, less=True)


class _Rows:
    def __len__(self) -> int:
        return 200_000

    def __getitem__(self, i: int) -> Any:
        return _row(i)


def _grain() -> Any:
    import grain  # pyright: ignore[reportMissingImports]

    return grain.MapDataset.range(200_000).shuffle(seed=1).map(_row).repeat()


def _first() -> dict[str, Callable[[], float]]:
    found: dict[str, Callable[[], float]] = {}
    if installed("torch"):

        def torch_first() -> float:
            return milliseconds(lambda: next(iter(torch_loader(_Rows(), BATCH, 2, None))))

        found["torch"] = torch_first
    if installed("grain"):

        def grain_first() -> float:
            started = time.perf_counter()
            with grain_batches(_grain(), BATCH, 2) as batches:
                next(batches)
                return (time.perf_counter() - started) * 1e3

        found["grain"] = grain_first
    return found


def _resumed() -> dict[str, Callable[[], float]]:
    found: dict[str, Callable[[], float]] = {}
    if installed("torchdata"):
        states: list[Any] = []

        def torch_resumed() -> float:
            if not states:
                states.append(_torch_state())
            loader = _stateful()
            return milliseconds(lambda: (loader.load_state_dict(states[0]), next(iter(loader))))

        found["torchdata"] = torch_resumed
    if installed("grain"):
        known: list[Any] = []

        def grain_resumed() -> float:
            if not known:
                with grain_batches(_grain(), BATCH, 2) as batches:
                    _pass(batches, STEPS[0])
                    known.append(batches.get_state())
            started = time.perf_counter()
            with grain_batches(_grain(), BATCH, 2) as batches:
                batches.set_state(known[0])
                next(batches)
                return (time.perf_counter() - started) * 1e3

        found["grain"] = grain_resumed
    return found


def _stateful() -> Any:
    from torchdata.stateful_dataloader import (  # pyright: ignore[reportMissingImports]
        StatefulDataLoader,
    )

    return StatefulDataLoader(_Rows(), BATCH, shuffle=True, num_workers=2)


def _torch_state() -> Any:
    loader = _stateful()
    _pass(iter(loader), STEPS[0])
    return loader.state_dict()


def _pass(batches: Any, steps: int) -> None:
    for _ in range(steps):
        next(batches)
