"""Who evaluates while the loop goes on: processes, for Python that holds the GIL."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass

from pipeline.chain import Chain
from pipeline.errors import ChainError
from pipeline.workers import dataset_bytes
from pipeline.workers.pool import Pool
from pipeline.workers.stats import QueueStats
from pipeline.workers.threads import check_count
from pipeline.workers.tickets import Book, Ticket
from pipeline.workers.work import Work


@dataclass(frozen=True)
class Processes:
    """n processes evaluate; results come through shared memory, without a copy.

    The dataset is sent once. Lambdas, closures and what `__main__` or a notebook defines can be
    sent, and no `if __name__ == "__main__"` is needed. A process that dies is replaced, its work
    done again.

    Attributes:
        n: how many.
        timeout: seconds after which one work (some batches, or a block) counts as hung and its
            process is replaced; None: never.

    Raises:
        ChainError: n is below 1, or timeout not above 0.

    >>> from pipeline import Dataset, Loader
    >>> ds = Dataset(range(8)).map(lambda x: x * x)
    >>> with Loader(ds, 4, workers=Processes(2)) as loader:
    ...     [batch.tolist() for batch in loader]
    [[0, 1, 4, 9], [16, 25, 36, 49]]
    """

    n: int
    timeout: float | None = None

    def __post_init__(self) -> None:
        check_count("Processes", self.n)
        if self.timeout is not None and not self.timeout > 0:
            raise ChainError(f"timeout={self.timeout!r}: give seconds above 0, or None")

    def open(self, chain: Chain, *, ahead: int, stack: bool) -> ProcessExecutor:
        return ProcessExecutor(chain, self, ahead, stack)


class ProcessExecutor:
    """Evaluates in processes, which start with the first work."""

    fresh = True

    def __init__(self, chain: Chain, options: Processes, ahead: int, stack: bool) -> None:
        self._chain, self._options, self._ahead, self._stack = chain, options, ahead, stack
        self._pool: Pool | None = None
        self._book = Book(options.n, ahead)

    def submit(self, work: Work, *, urgent: bool = False) -> Ticket:
        if self._pool is None:
            dataset = dataset_bytes.write(self._chain, self._stack)
            options = self._options
            self._pool = Pool(self._chain, self._book, dataset, options.n, options.timeout)
            self._end = weakref.finalize(self, _close, self._pool, os.getpid())
        return self._book.submit(work, urgent)

    def room(self) -> bool:
        return self._book.room()

    def group(self, rows: int) -> int:
        return self._book.group(rows)

    def stats(self) -> QueueStats:
        pool = self._pool
        return self._book.stats(
            up=pool.up() if pool else 0.0, restarts=pool.restarts if pool else 0
        )

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._end()
            self._pool, self._book = None, Book(self._options.n, self._ahead)


def _close(pool: Pool, owner: int) -> None:
    # a fork of this process inherits the finalizer, but not the workers
    if os.getpid() == owner:
        pool.close()
