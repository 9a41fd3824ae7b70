"""The peers' loaders, each at the best settings known: many rows a call, opened in the worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.measure import STARTED, installed, rate

WARM = 8  # batches before those that are measured
Fetch = Callable[[list[int]], list[Any]]


class Fetched:
    """`n` rows for torch, which gives its workers many indices at a time.

    Args:
        n: rows.
        opened: makes the function from indices to rows; called in the process that reads.
    """

    def __init__(self, n: int, opened: Callable[[], Fetch]) -> None:
        self._n, self._opened = n, opened
        self._fetch: Fetch | None = None

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        if self._fetch is None:
            self._fetch = self._opened()
        return self._fetch(indices)


def stacked(rows: list[Any]) -> Any:
    """Rows that are arrays as one tensor."""
    import torch

    return torch.from_numpy(np.stack(rows))


def torch_loader(rows: Any, batch: int, workers: int = 0, collate: Any = stacked) -> Any:
    """A shuffled DataLoader over rows that answer `__getitems__`."""
    import torch

    more: dict[str, Any] = {"prefetch_factor": 4} if workers else {}
    loader: Any = torch.utils.data.DataLoader
    return loader(rows, batch, shuffle=True, num_workers=workers, collate_fn=collate, **more)


def torch_run(
    rows: Callable[[], Any], batch: int, workers: int, *, most: int, warm: int = WARM, **how: float
) -> dict[str, Callable[[], float]]:
    """Rows a second of such a loader, by the peer's name; nothing where torch is not installed.

    `how` is passed on to `rate`; workers are first left time to start.
    """
    if not installed("torch"):
        return {}

    def run() -> float:
        found = rows()
        loader = torch_loader(found, batch, workers)
        least = min(most, len(found) // batch - warm)
        return rate(loader, batch, warm=warm, most=least, **_once_started(workers, how))

    return {"torch": run}


@contextmanager
def grain_batches(ds: Any, batch: int, workers: int = 0) -> Iterator[Any]:
    """Batches of a `grain.MapDataset`: as they are indexed, which its threads slow down here, or
    by processes."""
    import grain  # pyright: ignore[reportMissingImports]
    from absl import flags  # pyright: ignore[reportMissingModuleSource]

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["benchmarks"])  # its workers ask for them
    batches: Any = ds.batch(batch)
    if workers:
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
        batches = batches.to_iter_dataset(options)
        shared = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=4)
        batches = batches.mp_prefetch(shared)
    iterator: Any = iter(batches)
    try:
        yield iterator
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def grain_run(
    dataset: Callable[[], Any],
    batch: int,
    workers: int,
    *,
    most: int,
    warm: int = WARM,
    **how: float,
) -> dict[str, Callable[[], float]]:
    """As `torch_run`, for Grain."""
    if not installed("grain"):
        return {}

    def run() -> float:
        with grain_batches(dataset(), batch, workers) as batches:
            return rate(batches, batch, warm=warm, most=most, **_once_started(workers, how))

    return {"grain": run}


def _once_started(workers: int, how: dict[str, float]) -> dict[str, float]:
    return {"after": STARTED if workers else 0.0, **how}


class RandomAccess:
    """Records for Grain through array_record's own reader; a seek is quicker than `read([i])`."""

    def __init__(self, path: str, n: int) -> None:
        self._path, self._n = path, n
        self._fetch: Fetch | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_n": self._n, "_fetch": None}

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> bytes:
        if self._fetch is None:
            self._fetch = native(self._path)
        return self._fetch([int(index)])[0]


def native(path: str) -> Fetch:
    """Records by number from array_record's reader, one seek and read each: its best at random."""
    from array_record.python.array_record_module import (  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
        ArrayRecordReader,
    )

    reader: Any = ArrayRecordReader(path, options="readahead_buffer_size:0,max_parallelism:0")

    def fetch(indices: list[int]) -> list[bytes]:
        found: list[bytes] = []
        for i in indices:
            reader.seek(i)
            found.append(reader.read())
        return found

    return fetch
