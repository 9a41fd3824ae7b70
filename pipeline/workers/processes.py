"""Who evaluates while the loop goes on: processes, for Python that holds the GIL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.chain import Chain
from pipeline.errors import ChainError
from pipeline.workers import sending
from pipeline.workers.executor import Crew, Parallel
from pipeline.workers.pool import Pool
from pipeline.workers.queue import Queue


@dataclass(frozen=True)
class Processes(Parallel):
    """n processes evaluate; results come through shared memory, without a copy.

    The dataset is sent once. Lambdas, closures and what `__main__` or a notebook defines can be
    sent, and no `if __name__ == "__main__"` is needed. Functions of modules are imported anew: a
    module's plain values that were set since are taken along, and what else differs is refused. A
    process that dies is replaced, its work done again.

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

    timeout: float | None = None
    fresh: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timeout is not None and not self.timeout > 0:
            raise ChainError(f"timeout={self.timeout!r}: give seconds above 0, or None")

    def _crew(self, chain: Chain, queue: Queue, stack: bool) -> Crew:
        return Pool(chain, queue, sending.parcel(chain, stack), self.n, self.timeout)
