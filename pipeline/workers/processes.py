"""Worker processes, for functions that hold the GIL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import ChainError
from pipeline.nodes import Part
from pipeline.workers.executor import Crew, Parallel
from pipeline.workers.queue import Queue


@dataclass(frozen=True)
class Processes(Parallel):
    """n processes evaluate; results come through shared memory, without a copy.

    The dataset is sent once. Lambdas, closures and what `__main__` or a notebook defines can be
    sent, and no `if __name__ == "__main__"` is needed. Workers import modules anew: plain values
    that were set in a module since its import are sent along, and any other difference is refused.
    A process that dies is replaced, and its work redone.

    If the loop would have to wait for a batch that no process has begun, it evaluates that batch
    itself. So the first batch, also after a seek or resume, comes as soon as without workers. The
    loop never takes over what a process has begun, or died of.

    Attributes:
        n: how many processes.
        timeout: seconds after which one work (some batches, or a block) counts as hung and its
            process is replaced; None for never. With a timeout the loop evaluates nothing, as it
            might hang.
        parent: False if the loop must evaluate nothing, because functions may crash the process, or
            must run in a separate process.

    Raises:
        ChainError: n is below 1, or timeout is not above 0.

    >>> from pipeline import Dataset, Loader
    >>> ds = Dataset(range(8)).map(lambda x: x * x)
    >>> with Loader(ds, 4, workers=Processes(2)) as loader:
    ...     [batch.tolist() for batch in loader]
    [[0, 1, 4, 9], [16, 25, 36, 49]]
    """

    timeout: float | None = None
    parent: bool = True
    fresh: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timeout is not None and not self.timeout > 0:
            raise ChainError(f"timeout={self.timeout!r}: give seconds above 0, or None")

    def _helped(self, chain: Part) -> bool:
        return self.parent and self.timeout is None

    def _crew(self, chain: Part, queue: Queue, stack: bool) -> Crew:
        # imported with the first process, as nothing else needs it
        from pipeline.workers import sending
        from pipeline.workers.pool import Pool

        return Pool(chain, queue, sending.parcel(chain, stack), self.n, self.timeout)
