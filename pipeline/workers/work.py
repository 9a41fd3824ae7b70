"""What a worker is asked for: rows of an indexed dataset, or one block of a counted one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipeline.block import Block, Int64s
from pipeline.chain import Chain
from pipeline.types import At


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Stream rows of an indexed dataset: int64[n]."""

    rows: Int64s


@dataclass(frozen=True, slots=True)
class LaneBlock:
    """Block `number` of lane `lane` of a counted dataset."""

    lane: int
    number: int


Work = Rows | LaneBlock


def evaluate(chain: Chain, work: Work) -> Block:
    """The work's rows: a pure function of the two."""
    if isinstance(work, LaneBlock):
        return chain.read_block(work.lane, work.number)
    return chain.read(At.of_rows(work.rows, max(1, chain.length)))


class Pending(Protocol):
    """Work under way."""

    def result(self) -> Block:
        """Its rows, waiting for them; the same error again if asked again."""
        ...


class Executor(Protocol):
    """Evaluates work, in any order it likes: results depend on the work alone."""

    def submit(self, work: Work) -> Pending: ...

    def close(self) -> None: ...
