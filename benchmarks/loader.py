"""What the loader costs: import, columns beside a bare NumPy take, seek, the size of its state."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from unittest import mock

import numpy as np

from pipeline import Dataset, Loader
from pipeline.meter import Meter
from pipeline.workers.account import Account


def seconds(f: Callable[[], object], times: int) -> float:
    """Median seconds of one call, over five rounds."""
    rounds: list[float] = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(times):
            f()
        rounds.append((time.perf_counter() - start) / times)
    return statistics.median(rounds)


def start_up() -> None:
    for module in ("numpy", "pipeline"):
        command = [sys.executable, "-c", f"import {module}"]
        spent = seconds(lambda command=command: subprocess.run(command, check=True), 2)
        print(f"python -c 'import {module}': {spent * 1e3:.0f} ms")


def columns() -> None:
    n = 1_000_000
    table = {"x": np.random.default_rng(0).random((n, 16), np.float32), "y": np.arange(n)}
    indices = np.random.default_rng(1).integers(0, n, 1 << 20)
    print("shuffled columns, 16 float32 and an int64 a row, beside {name: column[indices]}")
    for size in (128, 1024, 8192):
        loader = Loader(Dataset(table).shuffle().repeat(), size)
        starts = iter(range(0, 1 << 40, size))

        def bare(size: int = size, starts: object = starts) -> object:
            start = next(starts) % (len(indices) - size)  # pyright: ignore[reportArgumentType, reportCallIssue]
            return {k: v[indices[start : start + size]] for k, v in table.items()}

        ours, theirs = seconds(lambda loader=loader: next(loader), 200), seconds(bare, 200)
        print(
            f"  batch {size:5}: {size / ours / 1e6:5.2f} M rows/s, {ours * 1e6:4.0f} us a batch; "
            f"bare take {theirs * 1e6:4.0f} us: ratio {ours / theirs:.1f}"
        )


def seek() -> None:
    loader = Loader(Dataset({"x": np.arange(10**6)}).shuffle().map(_same, name="tokenize"), 128)
    print("seek and one batch of 128 (shuffle + map), and the state's size as JSON")
    for step in (1, 10**4, 10**7, 10**9):

        def there(step: int = step) -> None:
            loader.seek(step)
            next(loader)

        spent = seconds(there, 50)
        loader.seek(step)
        size = len(json.dumps(loader.state_dict()))
        print(f"  step {step:>10}: {spent * 1e6:5.0f} us, {size} bytes")


def _same(row: object) -> object:
    return row


def stats() -> None:
    """What the figures of `loader.stats()` cost: the same loop with the meter patched away."""
    rows = {"x": np.random.default_rng(0).random((1 << 15, 64), np.float32)}

    def half(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"x": np.sqrt(rows["x"]) / 2}

    loader = Loader(Dataset(rows).shuffle().map(half, batched=True).repeat(), 1024)

    def untimed(_: object, stage: str, call: Callable[..., object], *args: object) -> object:
        return call(*args)

    def nothing(*_: object) -> None: ...

    def bare() -> object:
        with (
            mock.patch.object(Meter, "timed", untimed),
            mock.patch.object(Account, "handed_out", nothing),
        ):
            return [next(loader) for _ in range(50)]

    def metered() -> object:
        return [next(loader) for _ in range(50)]

    ratios: list[float] = []
    for _ in range(20):
        with_meter, without = seconds(metered, 1), seconds(bare, 1)
        ratios.append(with_meter / without - 1)
    spent = seconds(metered, 2) / 50
    print(
        f"stats: {statistics.median(ratios):.1%} of batches that take {spent * 1e6:.0f} us "
        "(shuffle and a light batched map)"
    )


if __name__ == "__main__":
    start_up()
    columns()
    seek()
    stats()
