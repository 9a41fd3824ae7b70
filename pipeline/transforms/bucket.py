"""Puts rows of similar length together, so that a batch of them has little padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from pipeline.block import Block, Columns, Int64s
from pipeline.checks import shown
from pipeline.errors import ChainError
from pipeline.seeds import Name
from pipeline.transforms.calling import each
from pipeline.transforms.code import Code
from pipeline.transforms.defaults import FunctionTransform
from pipeline.tree import children
from pipeline.types import Site


@final
@dataclass(frozen=True)
class Bucket(FunctionTransform):
    """Sorts a block's rows by bucket: buckets in the order of their first rows, rows as they came.

    No row is lost or changed. Where rows are shuffled beneath, short and long ones come first
    equally often. A batch holds one bucket, except where a block goes on to its next bucket, so
    blocks of many times the batch size pad least. Only the rows of one lane are put together:
    bucket where there is one lane, or for hosts that pad on their own.

    Attributes:
        f: a pure function of a row that returns its length; or the name of a field that has one.
        boundaries: rising; bucket i has lengths in (boundaries[i - 1], boundaries[i]], and one
            more bucket has those longer than all boundaries.

    Raises:
        ChainError: boundaries do not rise, or block is below 1.
    """

    f: Callable[..., Any] | str  # pyright: ignore[reportIncompatibleMethodOverride]
    boundaries: Sequence[float] = ()
    block: int = 1024
    kind = "bucket"
    counted = True

    def __post_init__(self) -> None:
        super().__post_init__()
        edges = np.asarray(self.boundaries)
        rising = edges.ndim == 1 and edges.dtype.kind in "iuf" and len(edges)
        if not rising or not (np.diff(edges) > 0).all() or np.isnan(edges).any():
            raise ChainError(f"bucket(boundaries={shown(self.boundaries)}): give rising numbers")
        object.__setattr__(self, "boundaries", tuple(edges.tolist()))

    def written(self) -> str:
        options = self.chosen("f", "name", "given", "boundaries")
        edges = shown(list(self.boundaries), 60)
        return f".bucket({', '.join([repr(self.name), edges, *options])})"

    def code_now(self) -> Code:
        return Code(self.f) if isinstance(self.f, str) else super().code_now()

    def apply(self, block: Block, site: Site) -> Block:
        """The same rows, those of one bucket together.

        Raises:
            ChainError: f gave no number, or rows lack the field that it names.
        """
        block, found = self._lengths(block, site)
        lengths = np.array(found)
        _, bucket = np.unique(
            np.searchsorted(self.boundaries, lengths, side="left"), return_inverse=True
        )
        first = np.full(bucket.max(initial=-1) + 1, len(block))
        np.minimum.at(first, bucket, np.arange(len(block)))
        return block.take(np.argsort(first[bucket], kind="stable"))

    def _lengths(self, block: Block, site: Site) -> tuple[Block, list[Any] | Int64s]:
        values = block.values
        if isinstance(self.f, str) and isinstance(values, Columns):
            column = dict(children(values.tree) or ()).get(self.f)
            if isinstance(column, np.ndarray) and column.ndim > 1:
                return block, np.full(len(block), column.shape[1])
        return each(lambda row: self._length(row, site), block, site, kept=True)

    def _length(self, row: Any, site: Site) -> Any:
        if isinstance(self.f, str):
            parts = dict(children(row) or ())
            if not hasattr(parts.get(self.f), "__len__"):
                raise ChainError(
                    f"{site.stage} wants the length of the field {self.f!r}: rows have "
                    f"{shown(list(parts)) if parts else type(row).__name__}. Name a field that has "
                    "one, or give a function of the row."
                )
            return len(parts[self.f])
        length = self.f(row)
        number = isinstance(length, int | float | np.number) and not isinstance(length, bool)
        if not number or length != length:  # NaN
            raise ChainError(
                f"{site.stage}: its key returned {shown(length)}, not a number. Return the row's "
                "length."
            )
        return length

    def options(self) -> tuple[Name, ...]:
        return int(self.block), tuple(repr(edge) for edge in self.boundaries)
