"""Keeps the rows for which a predicate holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from pipeline.block import Block
from pipeline.checks import shown
from pipeline.errors import ChainError
from pipeline.transforms.calling import each
from pipeline.transforms.defaults import FunctionTransform
from pipeline.types import Site


@final
@dataclass(frozen=True)
class Filter(FunctionTransform):
    """The rows for which `f(row)` is True, in order; columns stay columns."""

    block: int = 64
    kind = "filter"
    counted = True

    def apply(self, block: Block, site: Site) -> Block:
        """The rows that stay, each with its provenance.

        Raises:
            ChainError: f returned something else than a bool.
        """
        block, keep = each(self.f, block, site, kept=True)
        for i, answer in enumerate(keep):
            if answer is not True and answer is not False and not isinstance(answer, np.bool_):
                raise _no_bool(answer, i, block, site)
        return block.take(np.flatnonzero(np.array(keep, bool)))


def _no_bool(answer: Any, i: int, block: Block, site: Site) -> ChainError:
    error = ChainError(
        f"{site.stage} returned {shown(answer)} ({type(answer).__name__}), not True or False. "
        "Wrap it in bool(...) if its truth is meant."
    )
    site.annotate(error, block.origin, i)
    return error
