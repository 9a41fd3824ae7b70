"""Who evaluates while the loop goes on: processes, for Python that holds the GIL."""

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
    sent, and no `if __name__ == "__main__"` is needed. Functions of modules are imported anew: a
    module's plain values that were set since are taken along, and what else differs is refused. A
    process that dies is replaced, its work done again.

    Where the loop would wait for a batch that no process has begun, it evaluates that one itself:
    the first batch, and the first after a seek or resume, comes as soon as without workers. It
    never takes over what a process has begun, or died of.

    Attributes:
        n: how many.
        timeout: seconds after which one work (some batches, or a block) counts as hung and its
            process is replaced; None: never. With it, the loop evaluates nothing: it might hang.
        parent: False where the loop must evaluate nothing, as functions may crash the process, or
            belong into processes of their own.

    Raises:
        ChainError: n is below 1, or timeout not above 0.

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
        # what only a process needs is imported with the first one
        from pipeline.workers import sending
        from pipeline.workers.pool import Pool

        return Pool(chain, queue, sending.parcel(chain, stack), self.n, self.timeout)
