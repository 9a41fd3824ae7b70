"""Turns rows into a batch: collates them, and pads with a mask if remainder="pad"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from pipeline.batches.stream import Take
from pipeline.block import Columns, Int64s
from pipeline.dataset import Dataset
from pipeline.errors import BatchError
from pipeline.transforms import collate_block
from pipeline.transforms.collate import in_c_order, refuse_none
from pipeline.tree import fresh, map_leaves, owned
from pipeline.types import describe


@dataclass
class Assembly:
    """Turns rows into this process's part of a batch: a pytree of arrays that only it refers to.

    Arrays are C-contiguous, whoever evaluated the rows and whatever memory they lay in.

    Attributes:
        dataset: the dataset that the rows are of.
        pad: whether to fill up with zeros and add the field "mask".
        collate: the user's function from a list of rows to a batch; None to stack them.
    """

    dataset: Dataset
    pad: bool
    collate: Callable[[list[Any]], Any] | None
    _spec: Any = field(default=None, init=False)

    def __call__(self, take: Take) -> Any:
        values, n = take.whole.values, take.stop - take.start
        usual = self.collate is None and not self.pad and n
        if usual and isinstance(values, Columns) and values.plain:  # the quickest ways
            if n == len(values):
                return in_c_order(values.tree if take.own else map_leaves(owned, values.tree))
            if not take.own:
                return _copied(values.tree, take.start, take.stop)
        return in_c_order(self._assembled(take))

    def _assembled(self, take: Take) -> Any:
        if self.collate is None:
            return self._stacked(take)
        if self.pad and not getattr(self.collate, "ragged", False):
            return self.collate(Columns(self._stacked(take), len(take.rows)).rows())
        tree = self._by_hand(self.collate, take)
        return _padded(tree, take.slots, len(take.rows)) if self.pad else tree

    def _stacked(self, take: Take) -> Any:
        tree = self._columns(take)
        return _padded(tree, take.slots, len(take.rows)) if self.pad else tree

    def _by_hand(self, collate: Callable[[list[Any]], Any], take: Take) -> Any:
        rows = take.block.rows()
        refuse_none(rows, self._describe(take), take.block.made)
        if self.pad and not rows:
            blank = map_leaves(lambda a: a[0], self._blank(1))
            return map_leaves(lambda a: a[:0], collate([blank]))
        return collate([fresh(row) for row in rows] if take.kept else rows)

    def _blank(self, n: int) -> Any:
        # a host may hold no real row of a padded batch, yet its fields must be there
        self._spec = self.dataset.spec if self._spec is None else self._spec
        return map_leaves(lambda s: _zeros((n, *s.shape), s.dtype), self._spec)

    def _columns(self, take: Take) -> Any:
        if take.start == take.stop:
            return self._blank(0)
        block = take.block
        tree = collate_block(block, self._describe(take))
        return tree if take.own else map_leaves(owned, tree)

    def _describe(self, take: Take) -> Callable[[int], str]:
        return lambda i: describe(self.dataset.top.scope.components, take.block.origin, i)


def _copied(tree: Any, start: int, stop: int) -> Any:
    # rows of plain columns
    if type(tree) is dict:
        return {key: _copied(part, start, stop) for key, part in tree.items()}
    return tree[start:stop].copy()


def _zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    return np.full(shape, None, object) if dtype.kind == "O" else np.zeros(shape, dtype)


def _padded(tree: Any, slots: Int64s, size: int) -> Any:
    if not isinstance(tree, dict):
        raise BatchError(
            f'remainder="pad" adds a field "mask", so rows must be dicts, not '
            f"{type(tree).__name__}. "
            'Return {"x": row} from a .map.'
        )
    if "mask" in tree:
        raise BatchError(
            'remainder="pad" adds a field "mask", but rows have one. Rename it in a .map.'
        )

    def fill(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        full = _zeros((size, *a.shape[1:]), a.dtype)
        full[slots] = a
        return full

    padded = cast(dict[str, Any], map_leaves(fill, tree))
    mask = np.zeros(size, bool)
    mask[slots] = True
    return {**padded, "mask": mask}
