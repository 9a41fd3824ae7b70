"""How one row becomes many, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from pipeline.block import Block
from pipeline.errors import ChainError
from pipeline.transforms.calling import check_block, each, label, lazy
from pipeline.transforms.code import code_digest
from pipeline.types import Site


@final
@dataclass(frozen=True)
class FlatMap:
    """All rows of `f(row)`, in order; output j of a row has one more place in its provenance: j.

    Attributes:
        f: a pure function of a row that returns an iterable of rows (a generator will do).
        name: what messages and the fingerprint call it.
        block: about how many rows it looks at together.
        code: what f computed when the stage was made, in eight hex digits.

    Raises:
        ChainError: block is below 1.
    """

    f: Callable[[Any], Iterable[Any]]
    name: str
    block: int = 64
    code: str = field(init=False, repr=False)
    kind = "flat_map"
    random = False
    counted = True

    def __post_init__(self) -> None:
        check_block(self.kind, self.block)
        object.__setattr__(self, "code", code_digest(self.f))

    def apply(self, block: Block, site: Site) -> Block:
        """The outputs of all rows, end to end.

        Raises:
            ChainError: f returned one row rather than an iterable of rows.
        """
        outputs = each(lambda _, row: self._rows_of(row, site), block, site)
        counts = np.array([len(rows) for rows in outputs], np.int64)
        ends = np.cumsum(counts)
        inside = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
        origin = block.origin.take(np.repeat(np.arange(len(block)), counts)).deeper(inside)
        return Block([row for rows in outputs for row in rows], origin)

    def _rows_of(self, row: Any, site: Site) -> list[Any]:
        rows: Any = self.f(row)
        if isinstance(rows, str | bytes | dict) or not hasattr(rows, "__iter__"):
            raise ChainError(
                f"{site.stage} returned a {type(rows).__name__}, not an iterable of rows. "
                "Return [row] for one row, [] for none."
            )
        found = list(rows)
        for one in found:
            if lazy(one):
                raise ChainError(
                    f"{site.stage} gave a {type(one).__name__} as a row, which can be read only "
                    "once. Return lists, tuples or arrays."
                )
        return found

    def fingerprint(self) -> str:
        return label(self.kind, self.name, self.code, int(self.block))
