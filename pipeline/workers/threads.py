"""Worker threads, for functions that release the GIL."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import ClassVar

from pipeline.meter import METER, weight
from pipeline.nodes import Part
from pipeline.workers.executor import Crew, Parallel
from pipeline.workers.queue import Future, Outcome, Queue, raising
from pipeline.workers.stats import Worked
from pipeline.workers.work import produce


@dataclass(frozen=True)
class Threads(Parallel):
    """n threads evaluate: for functions that release the GIL (NumPy, decoders, reading).

    Attributes:
        n: how many threads.

    Raises:
        ChainError: n is below 1.

    >>> from pipeline import Dataset, Loader
    >>> with Loader(Dataset(range(8)), 4, workers=Threads(2)) as loader:
    ...     [batch.tolist() for batch in loader]
    [[0, 1, 2, 3], [4, 5, 6, 7]]
    """

    nests: ClassVar[bool] = True

    def _crew(self, chain: Part, queue: Queue, stack: bool) -> Crew:
        return _Crew(chain, queue, self.n, stack)


class _Crew(Crew):
    def __init__(self, chain: Part, queue: Queue, n: int, stack: bool) -> None:
        super().__init__(chain, queue, n)
        self._stack = stack
        self._threads = [
            threading.Thread(target=self._run, args=(i,), name=f"lockstep-{i}", daemon=True)
            for i in range(n)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, i: int) -> None:
        while (future := self._queue.await_pull()) is not None:
            started = time.perf_counter()
            outcome, size = self._outcome(future)
            spent, stages = time.perf_counter() - started, METER.take()
            self._queue.measured(Worked(future.number, i, started, spent, stages))
            self._queue.finish(future, outcome, size, spent)
            del future, outcome  # a thread that waits must not keep a batch alive

    def _outcome(self, future: Future) -> tuple[Outcome, int]:
        try:
            block = produce(self._chain, future.work, self._stack)
        except BaseException as error:
            return raising(error), 0
        return (lambda: block), weight(block)

    def close(self) -> None:
        super().close()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=1.5)
