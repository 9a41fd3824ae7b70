"""Which rows stand together: those of similar length, so that a batch of them pads little."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from pipeline.block import Block, Columns, Int64s
from pipeline.errors import ChainError
from pipeline.transforms.calling import check_block, each, label
from pipeline.transforms.code import code_digest
from pipeline.tree import children
from pipeline.types import Site


@final
@dataclass(frozen=True)
class Bucket:
    """A block's rows bucket after bucket, in each as they came; the bucket that came first, first.

    So no row is lost or changed, and where rows are shuffled beneath neither short nor long ones
    come first. A batch holds one bucket except where a block goes on to its next one: of the
    batches of B rows at most one for each bucket of a block, so blocks of many times B rows pad
    least. Only the rows of one lane stand together: bucket where L is 1, or for hosts that pad on
    their own.

    Attributes:
        key: a pure function of a row that returns its length; or the name of a field that has one.
        boundaries: rising; bucket i has lengths above boundaries[i - 1], up to and with
            boundaries[i], and one more bucket has what is longer than all.
        block: about how many rows it looks at together.
        name: what messages and the fingerprint call it.
        code: what key computed when the stage was made, in eight hex digits.

    Raises:
        ChainError: boundaries do not rise, or block is below 1.
    """

    key: Callable[[Any], Any] | str
    boundaries: Sequence[float]
    block: int = 1024
    name: str = "bucket"
    code: str = field(init=False, repr=False)
    kind = "bucket"
    random = False
    counted = True

    def __post_init__(self) -> None:
        check_block(self.kind, self.block)
        edges = np.asarray(self.boundaries)
        rising = edges.ndim == 1 and edges.dtype.kind in "iuf" and len(edges)
        if not rising or not (np.diff(edges) > 0).all():
            raise ChainError(f"bucket(boundaries={self.boundaries!r}): give rising numbers")
        object.__setattr__(self, "boundaries", tuple(edges.tolist()))
        named = isinstance(self.key, str)
        object.__setattr__(self, "code", self.key if named else code_digest(self.key))

    def apply(self, block: Block, site: Site) -> Block:
        """The same rows, those of one bucket together.

        Raises:
            ChainError: key gave no number, or rows lack the field that it names.
        """
        lengths = np.array(self._lengths(block, site))
        _, bucket = np.unique(
            np.searchsorted(self.boundaries, lengths, side="left"), return_inverse=True
        )
        first = np.full(bucket.max(initial=-1) + 1, len(block))
        np.minimum.at(first, bucket, np.arange(len(block)))
        return block.take(np.argsort(first[bucket], kind="stable"))

    def _lengths(self, block: Block, site: Site) -> list[Any] | Int64s:
        values = block.values
        if isinstance(self.key, str) and isinstance(values, Columns):
            column = dict(children(values.tree) or ()).get(self.key)
            if isinstance(column, np.ndarray) and column.ndim > 1:
                return np.full(len(block), column.shape[1])
        return each(lambda _, row: self._length(row, site), block, site)

    def _length(self, row: Any, site: Site) -> Any:
        if isinstance(self.key, str):
            parts = dict(children(row) or ())
            if not hasattr(parts.get(self.key), "__len__"):
                raise ChainError(
                    f"{site.stage} wants the length of the field {self.key!r}: rows have "
                    f"{list(parts) or type(row).__name__}. Name a field that has one, or give a "
                    "function of the row."
                )
            return len(parts[self.key])
        length = self.key(row)
        if isinstance(length, bool) or not isinstance(length, int | float | np.number):
            raise ChainError(
                f"{site.stage}: its key returned {length!r}, not a number. Return the row's length."
            )
        return length

    def fingerprint(self) -> str:
        edges = tuple(repr(edge) for edge in self.boundaries)
        return label(self.kind, self.name, self.code, int(self.block), edges)
