"""Which rows stay: those for which a predicate holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from pipeline.block import Block
from pipeline.errors import ChainError
from pipeline.transforms.calling import check_block, each, label
from pipeline.transforms.code import code_digest
from pipeline.types import Site


@final
@dataclass(frozen=True)
class Filter:
    """The rows for which `p(row)` is True, in order; columns stay columns.

    Attributes:
        p: a pure function of a row that returns a bool.
        name: what messages and the fingerprint call it.
        block: about how many rows it looks at together.
        code: what p computed when the stage was made, in eight hex digits.

    Raises:
        ChainError: block is below 1.
    """

    p: Callable[[Any], bool | np.bool_]
    name: str
    block: int = 64
    code: str = field(init=False, repr=False)
    kind = "filter"
    random = False
    counted = True

    def __post_init__(self) -> None:
        check_block(self.kind, self.block)
        object.__setattr__(self, "code", code_digest(self.p))

    def apply(self, block: Block, site: Site) -> Block:
        """The rows that stay, each with its provenance.

        Raises:
            ChainError: p returned something else than a bool.
        """
        keep = each(lambda _, row: self._keeps(row, site), block, site)
        return block.take(np.flatnonzero(np.array(keep, bool)))

    def _keeps(self, row: Any, site: Site) -> bool:
        answer = self.p(row)
        if not isinstance(answer, bool | np.bool_):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ChainError(
                f"{site.stage} returned {answer!r} ({type(answer).__name__}), not True or False. "
                "Wrap it in bool(...) if its truth is meant."
            )
        return bool(answer)

    def fingerprint(self) -> str:
        return label(self.kind, self.name, self.code, int(self.block))
