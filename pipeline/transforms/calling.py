"""How a user's function is called: on rows that it cannot change, its errors located and named."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import numpy as np

from pipeline.block import Block, Columns
from pipeline.errors import ChainError
from pipeline.meter import BEACON
from pipeline.seeds import Name, derive_seed
from pipeline.tree import map_leaves
from pipeline.types import Site

LOGGER = logging.getLogger("pipeline")
T = TypeVar("T")


def _read_only(leaf: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    view = leaf.view()
    view.flags.writeable = False
    return view


def guarded(tree: Any) -> Any:
    """The same tree in new containers, its arrays read-only: a stage must not change its input."""
    return map_leaves(lambda a: _read_only(a) if isinstance(a, np.ndarray) else a, tree)


def each(call: Callable[[int, Any], T], block: Block, site: Site) -> list[T]:
    """`call(i, row)` for every row; an error of it gets a note on the stage and the row.

    Raises:
        ChainError: a result is an iterator, which could be read only once.
    """
    values = block.values
    rows = Columns(guarded(values.tree)).rows() if isinstance(values, Columns) else values
    results: list[T] = []
    tell = BEACON.tell
    try:
        for i, row in enumerate(rows):
            if tell is not None:
                tell(f"in {site.stage}, on {site.describe(block.origin, i)}")
            result = call(i, row)
            if lazy(result):
                raise ChainError(
                    f"{site.stage} returned a {type(result).__name__}, which can be read only "
                    f"once, for {site.describe(block.origin, i)}. Return a list, a tuple or an "
                    "array; for many rows of one, use flat_map."
                )
            results.append(result)
    except BaseException as error:
        fail(error, site, lambda e: site.annotate(e, block.origin, len(results)))
    return results


def fail(error: BaseException, site: Site, annotate: Callable[[BaseException], object]) -> NoReturn:
    """Raise the error of a stage's function again, with a note on where it came from.

    StopIteration becomes a RuntimeError, as in a generator (PEP 479): loops would take it for
    their end. SystemExit ends a program without a traceback, so its note is logged.
    """
    if isinstance(error, StopIteration):
        told = RuntimeError(f"the function of {site.stage} raised StopIteration")
        annotate(told)
        raise told from error
    annotate(error)
    if isinstance(error, SystemExit):
        LOGGER.error("SystemExit(%r) %s", error.code, error.__notes__[-1])
    raise error


_EAGER = frozenset((dict, tuple, list, np.ndarray, bool, int, float, str, bytes, type(None)))


def lazy(value: object) -> bool:
    """Whether a value is an iterator, a generator or a coroutine: it could be read only once.

    >>> lazy([1, 2]), lazy(x for x in [1, 2])
    (False, True)
    """
    kind = type(value)
    return kind not in _EAGER and (hasattr(kind, "__next__") or hasattr(kind, "__await__"))


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
