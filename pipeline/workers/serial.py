"""Who evaluates when nobody else does: the caller's own thread, when the result is asked for."""

from __future__ import annotations

from pipeline.block import Block
from pipeline.chain import Chain
from pipeline.workers.work import Work, evaluate


class SerialResult:
    """One piece of work, done when first asked for; after a failure, asking again tries again."""

    __slots__ = ("_block", "_chain", "_work")

    def __init__(self, chain: Chain, work: Work) -> None:
        self._chain, self._work = chain, work
        self._block: Block | None = None

    def result(self) -> Block:
        if self._block is None:
            self._block = evaluate(self._chain, self._work)
        return self._block


class Serial:
    """Evaluates in the calling thread."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def submit(self, work: Work) -> SerialResult:
        return SerialResult(self._chain, work)

    def close(self) -> None:
        """Nothing to end."""
