"""How values change one row at a time, or many stacked rows at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from pipeline.block import Block, Columns
from pipeline.errors import ChainError
from pipeline.transforms.calling import each, fail, guarded, label
from pipeline.transforms.collate import collate, collate_block
from pipeline.transforms.rowwise import Rowwise
from pipeline.tree import leaves, map_leaves
from pipeline.types import Site


@final
@dataclass(frozen=True)
class Map(Rowwise):
    """Each row through `f(row)`; batched, stacked rows through `f(rows)` to as many rows.

    Attributes:
        f: a pure function. Columns reach it read-only; other rows it must not change in place.
        name: what messages and the fingerprint call it.
        batched: f takes and returns a pytree of arrays `[n, ...]`. It treats rows one by one: n may
            be any number from 1.
        code: what f computed when the stage was made, in eight hex digits.
    """

    batched: bool = False
    kind = "map"

    def apply(self, block: Block, site: Site) -> Block:
        """The rows, changed.

        Raises:
            ChainError: a batched f returned another number of rows.
            CollateError: rows for a batched f do not stack.
        """
        if not len(block):
            return Block([], block.origin)
        if self.batched:
            return Block(self._many(block, site), block.origin)
        return Block(each(lambda _, row: self.f(row), block, site), block.origin)

    def _many(self, block: Block, site: Site) -> Columns:
        stacked = collate_block(block, lambda i: site.describe(block.origin, i))
        try:
            # guarded again: f may return arrays of its own, which no batch may write into
            result = Columns(guarded(_as_columns(self.f(guarded(stacked))).tree))
        except BaseException as error:
            last = len(block) - 1
            span = " to ".join(site.describe(block.origin, i) for i in sorted({0, last}))
            note = f"in {site.stage}, batched, on {len(block)} rows: {span}"
            fail(error, site, lambda e: e.add_note(note))
        if len(result) != len(block):
            raise ChainError(
                f"{site.stage}: got {len(block)} stacked rows and returned {len(result)}. A "
                "batched map returns a row for each; filter and flat_map change their number."
            )
        return result

    def fingerprint(self) -> str:
        return label(self.kind, self.name, self.code, int(self.batched))


def _as_columns(tree: Any) -> Columns:
    # a list follows collate's rules: its strings become objects, never fixed-width
    tree = map_leaves(lambda x: collate(x) if isinstance(x, list) and x else x, tree)
    try:
        return Columns(tree)
    except ChainError as e:
        shapes = {name or "value": np.shape(leaf) for name, leaf in leaves(tree)}
        raise ChainError(
            f"a batched map returns arrays that share their leading axis, got shapes {shapes}. "
            "Return an array of n rows for each field."
        ) from e


@final
@dataclass(frozen=True)
class MapWithIndex(Rowwise):
    """Each row through `f(position, row)`, its position in the dataset, from 0.

    Attributes:
        f: a pure function of an int and a row.
        name: what messages and the fingerprint call it.
        code: what f computed when the stage was made, in eight hex digits.
    """

    kind = "map_with_index"

    def apply(self, block: Block, site: Site) -> Block:
        """The rows, changed.

        Raises:
            ChainError: rows here have no positions.
        """
        if not len(block):
            return Block([], block.origin)
        if site.index is None:
            raise ChainError(
                f"{site.stage}: rows after filter, flat_map or pack have no position. "
                "Move it before them."
            )
        at = site.index.tolist()
        return Block(each(lambda i, row: self.f(at[i], row), block, site), block.origin)
