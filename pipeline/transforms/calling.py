"""How a user's function is called: on rows that it cannot change, its errors located and named."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from pipeline.block import Block, Columns, Origin
from pipeline.errors import ChainError
from pipeline.meter import BEACON
from pipeline.tree import map_leaves
from pipeline.types import Site

LOGGER = logging.getLogger("pipeline")


def guarded(tree: Any) -> Any:
    """The same tree in new containers, its arrays read-only: a stage must not change its input."""
    return map_leaves(lambda a: _read_only(a) if isinstance(a, np.ndarray) else a, tree)


def _read_only(leaf: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    view = leaf.view()
    view.flags.writeable = False
    return view


def rows_of(block: Block) -> list[Any]:
    """A block's rows as a function gets them: views of columns are read-only."""
    values = block.values
    if isinstance(values, Columns):
        return Columns(guarded(values.tree), len(values)).rows()
    return values


def each(f: Callable[..., Any], block: Block, site: Site, *columns: Iterable[Any]) -> list[Any]:
    """`f(row)` for each row of a block, or `f(*values, row)` with a value of each column before it.

    Raises:
        Exception: whatever f raises, with a note on the stage and the row.
        RuntimeError: f raised StopIteration, which would end the loop over batches unseen.
    """
    rows = rows_of(block)
    results: list[Any] = []
    if BEACON.tell is not None:
        f = _told(f, block, site)
    try:
        # one call of f a row and no other: `extend` drops StopIteration, so lengths are compared
        results.extend(map(f, *columns, rows))
        if len(results) < len(rows):
            raise stopped(site)
    except BaseException as error:
        site.annotate(error, block.origin, len(results))
        say_exit(error)
        raise
    return results


def stopped(site: Site) -> RuntimeError:
    """The error for a function that raised StopIteration."""
    return RuntimeError(
        f"{site.stage} raised StopIteration, which would end the loop that called it. Give next() "
        "a default, or raise another error."
    )


def say_exit(error: BaseException) -> None:
    """Log where SystemExit was raised: it ends a program without showing its notes."""
    if isinstance(error, SystemExit):
        LOGGER.error("SystemExit(%r) %s", error.code, error.__notes__[-1])


def _told(f: Callable[..., Any], block: Block, site: Site) -> Callable[..., Any]:
    # f, which first tells the record that it is called for: see `pipeline.meter.Beacon`
    records = iter(range(len(block)))

    def call(*args: Any) -> Any:
        if BEACON.tell is not None:
            BEACON.tell(f"in {site.stage}, on {site.describe(block.origin, next(records))}")
        return f(*args)

    return call


def made_by(site: Site, rows: list[Any], origin: Origin, beneath: Block) -> Block:
    """A block of rows that a stage returned for those beneath.

    Of rows that are None it says which stage made them: the first one, as later ones may hand
    them on.

    Raises:
        ChainError: a row can be read only once, as a generator.
    """
    kinds = set(map(type, rows))
    once = {kind for kind in kinds if issubclass(kind, Iterator)}
    if once:
        i = next(i for i, row in enumerate(rows) if type(row) in once)
        error = ChainError(
            f"{site.stage} returned a {type(rows[i]).__name__} as a row, which can be read only "
            "once. Return list(...) of it, or use .flat_map if each of its items is a row."
        )
        site.annotate(error, origin, i)
        raise error
    if type(None) not in kinds:
        return Block(rows, origin)
    handed_on = any(row is None for row in beneath.rows())
    return Block(rows, origin, beneath.made if handed_on else site.stage)
