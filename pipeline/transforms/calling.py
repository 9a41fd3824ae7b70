"""How a user's function is called: on rows that it cannot change, its errors located and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from pipeline.block import Block, Columns
from pipeline.errors import ChainError
from pipeline.seeds import Name, derive_seed
from pipeline.tree import map_leaves
from pipeline.types import Site

T = TypeVar("T")


def _read_only(leaf: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    view = leaf.view()
    view.flags.writeable = False
    return view


def guarded(tree: Any) -> Any:
    """The same tree in new containers, its arrays read-only: a stage must not change its input."""
    return map_leaves(lambda a: _read_only(a) if isinstance(a, np.ndarray) else a, tree)


def each(call: Callable[[int, Any], T], block: Block, site: Site) -> list[T]:
    """`call(i, row)` for every row; an error of it gets a note on the stage and the row."""
    values = block.values
    rows = Columns(guarded(values.tree)).rows() if isinstance(values, Columns) else values
    results: list[T] = []
    try:
        for i, row in enumerate(rows):
            results.append(call(i, row))
    except Exception as error:
        site.annotate(error, block.origin, len(results))
        raise
    return results


def label(kind: str, name: str, *options: Name) -> str:
    """A stage's fingerprint: kind, name, and eight hex digits over all that it depends on.

    >>> label("map", "tokenize", "1a2b3c4d")
    'map tokenize e8c7d402'
    """
    shown = name if len(name) <= 16 else name[:15] + "~"
    return f"{kind} {shown} {derive_seed(kind, name, *options) % 2**32:08x}"


def check_block(kind: str, block: int) -> None:
    """Refuse a block size below one.

    Raises:
        ChainError: it is.
    """
    if block < 1:
        raise ChainError(
            f"{kind}(block={block}): a block is at least 1 row, some 64 to 1024 do well"
        )
