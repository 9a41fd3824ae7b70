"""Changes values: one row at a time, or many stacked rows at a time."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from typing import Any, final

import numpy as np

from pipeline.block import Block, Columns, Origin
from pipeline.errors import ChainError
from pipeline.seeds import Name
from pipeline.transforms.calling import Caller, each, guarded, made_by, say_exit, stopped
from pipeline.transforms.collate import collate, collate_block
from pipeline.transforms.defaults import FunctionTransform
from pipeline.tree import leaves, map_leaves
from pipeline.types import Site


@final
@dataclass(frozen=True)
class Map(FunctionTransform):
    """Applies `f(row)` to each row; or, if batched, `f(rows)` to stacked rows, giving as many.

    f is pure. It gets columns read-only, and must not change other rows in place.

    Attributes:
        batched: whether f takes and returns a pytree of arrays `[n, ...]`. It must treat rows one
            by one, as n may be any number from 1.
    """

    batched: bool = False
    kind = "map"

    @property
    def rowwise(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return not self.batched

    def caller(self, origin: Origin, site: Site) -> Caller:
        return self.f, ()

    def apply(self, block: Block, site: Site) -> Block:
        """The rows, changed.

        Raises:
            ChainError: a batched f returned another number of rows, or a row is an iterator.
            CollateError: rows for a batched f do not stack.
        """
        if not len(block):
            return Block([], block.origin)
        if self.batched:
            return Block(self._many(block, site), block.origin)
        block, rows = each(self.f, block, site)
        return made_by(site, rows, block.origin, block)

    def _many(self, block: Block, site: Site) -> Columns:
        stacked = collate_block(block, lambda i: site.describe(block.origin, i))
        try:
            result = self._called(stacked, len(block), site)
        except BaseException as error:
            last = len(block) - 1
            span = " to ".join(site.describe(block.origin, i) for i in sorted({0, last}))
            error.add_note(f"in {site.stage}, batched, on {len(block)} rows: {span}")
            say_exit(error)
            raise
        if len(result) != len(block):
            raise ChainError(
                f"{site.stage}: got {len(block)} stacked rows and returned {len(result)}. A "
                "batched map returns a row for each; filter and flat_map change their number."
            )
        return result

    def _called(self, stacked: Any, n: int, site: Site) -> Columns:
        try:
            made = _as_columns(self.f(guarded(stacked)), None if _some(stacked) else n)
        except StopIteration as error:
            raise stopped(site) from error
        # guarded again: f may return arrays of its own, which no batch may write into
        return unshared(made).each(guarded)

    def options(self) -> tuple[Name, ...]:
        return (int(self.batched),)


def unshared(columns: Columns) -> Columns:
    """The columns; those that somebody else holds and may write to again are copied."""
    bare = type(columns.tree) is np.ndarray

    def own(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        shared = a.flags.writeable and _held(a) > _alone(bare, a.base is not None)
        return a.copy() if shared else a

    return Columns.of(map_leaves(own, columns.tree), len(columns))


def _held(a: np.ndarray[Any, Any]) -> int:
    # how often the array that owns the memory is referred to
    owner = a
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return sys.getrefcount(owner) if owner.base is None else sys.maxsize


@cache
def _alone(bare: bool, view: bool) -> int:
    # the same, found likewise, of an array that nobody else holds: interpreters count differently
    found = list[int]()

    def own(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        found.append(_held(a))
        return a

    def fresh() -> np.ndarray[Any, Any]:
        return np.zeros(2)[:1] if view else np.zeros(2)

    Columns(fresh() if bare else {"x": fresh()}).each(own)
    return found[0]


def _some(tree: Any) -> bool:
    return any(True for _ in leaves(tree))


def _as_columns(tree: Any, n: int | None) -> Columns:
    # a list follows collate's rules: its strings become objects, never fixed-width
    tree = map_leaves(lambda x: collate(x) if isinstance(x, list) and x else x, tree)
    try:
        return Columns(tree, n)
    except ChainError as e:
        shapes = {name or "value": np.shape(leaf) for name, leaf in leaves(tree)}
        raise ChainError(
            f"a batched map returns arrays that share their leading axis, got shapes {shapes}. "
            "Return an array of n rows for each field."
        ) from e


@final
@dataclass(frozen=True)
class MapWithIndex(FunctionTransform):
    """Applies `f(position, row)` to each row; positions in the dataset count from 0."""

    kind = "map_with_index"
    rowwise = True

    def apply(self, block: Block, site: Site) -> Block:
        """The rows, changed.

        Raises:
            ChainError: rows here have no positions, or a row that f returned is an iterator.
        """
        if not len(block):
            return Block([], block.origin)
        f, columns = self.caller(block.origin, site)
        block, rows = each(f, block, site, *columns)
        return made_by(site, rows, block.origin, block)

    def caller(self, origin: Origin, site: Site) -> Caller:
        if site.index is None:
            raise ChainError(
                f"{site.stage}: rows after filter, flat_map or pack have no position. "
                "Move it before them."
            )
        return self.f, (site.index.tolist(),)
