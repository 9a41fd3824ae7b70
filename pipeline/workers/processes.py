"""Who evaluates while the loop goes on: processes, for Python that holds the GIL."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ChainError
from pipeline.nodes import Part
from pipeline.workers import dataset_bytes
from pipeline.workers.pool import Pool
from pipeline.workers.queued import QueuedExecutor
from pipeline.workers.threads import check_count
from pipeline.workers.tickets import Book


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

    def open(self, chain: Part, *, ahead: int, stack: bool) -> QueuedExecutor:
        def start(book: Book) -> Pool:
            dataset = dataset_bytes.write(chain, stack)
            return Pool(chain, book, dataset, self.n, self.timeout)

        return QueuedExecutor(start, workers=self.n, ahead=ahead, fresh=True)
