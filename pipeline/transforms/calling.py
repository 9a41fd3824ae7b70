"""Calls a user's function on rows that it cannot change, and adds stage and row to its errors."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from pipeline.block import Block, Columns, Origin
from pipeline.errors import ChainError
from pipeline.meter import BEACON
from pipeline.transforms.lending import Given, Watch
from pipeline.tree import map_leaves
from pipeline.types import Site

# a function, and columns of the values that come before the row in its arguments
Caller = tuple[Callable[..., Any], Sequence[Sequence[Any]]]

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


def each(
    f: Callable[..., Any], block: Block, site: Site, *columns: Sequence[Any], kept: bool = False
) -> tuple[Block, list[Any]]:
    """The results of `f(row)` for each row of a block; values of `columns` come before the row.

    No row is given to f twice, since f may change it in place: see `Given`, unless the rows
    themselves are `kept`, with what f has changed in them.

    Returns:
        The block, without the rows that failed and are skipped; and a result for each of its rows.

    Raises:
        Exception: whatever f raises, with a note on the stage and the row.
        RuntimeError: f raised StopIteration, which would end the loop over batches unseen.
    """
    rows, results, bad = rows_of(block), list[Any](), list[int]()
    if site.skip is None:
        return block, called(f, columns, rows if kept else Given(rows), block.origin, site)
    while len(results) + len(bad) < len(rows):
        first = len(results) + len(bad)
        try:
            given = rows[first:] if kept else Given(rows[first:], lists=2)
            called(f, columns, given, block.origin, site, first, results)
        except Exception as error:
            failed = len(results) + len(bad)
            if not site.skip(failed, error):
                raise
            bad.append(failed)
    return (block.take(np.delete(np.arange(len(rows)), bad)) if bad else block), results


def called(
    f: Callable[..., Any],
    columns: Sequence[Sequence[Any]],
    rows: list[Any] | Given,
    origin: Origin,
    site: Site,
    first: int = 0,
    into: list[Any] | None = None,
) -> list[Any]:
    """As `each`, on some rows of a block: those from its row `first` on.

    Results are added to `into` where it is given, also those of the rows before one that fails.
    """
    results: list[Any] = [] if into is None else into
    before = len(results)
    if BEACON.tell is not None:
        f = _told(f, origin, site, first)
    try:
        # f is called once for each row. `extend` swallows StopIteration, so lengths are compared
        found = map(f, *[column[first : first + len(rows)] for column in columns], rows)
        results.extend(islice(found, 1))
        watched = watch(results[before]) if len(rows) > 1 and len(results) > before else None
        results.extend(found if len(results) > before else ())
        if len(results) - before < len(rows):
            raise stopped(site)
        if watched is not None and watched.changed:
            del results[before:]
            raise filled_again(site)
    except BaseException as error:
        if rows:  # an interrupt may come after the last row
            site.annotate(error, origin, first + min(len(results) - before, len(rows) - 1))
        say_exit(error)
        raise
    return results


class Outputs(list[Any]):
    """The rows that a function returned for one row: the first of them is watched."""

    __slots__ = ()


def watch(result: Any) -> Watch:
    """Begin to watch a function's result, or the first row of several."""
    first = next(iter(result), None) if type(result) is Outputs else result
    return Watch(first)


def filled_again(site: Site) -> ChainError:
    """The error for a function that changed a row after it had returned it."""
    return ChainError(
        f"{site.stage} changed what it had returned for an earlier row, such as an array or a "
        "dict. Rows are kept until their batch is whole: return a new one each time, as "
        "buffer.copy()."
    )


def stopped(site: Site) -> RuntimeError:
    """The error for a function that raised StopIteration."""
    return RuntimeError(
        f"{site.stage} raised StopIteration, which would end the loop that called it. Give next() "
        "a default, or raise another error."
    )


def say_exit(error: BaseException) -> None:
    """Log where SystemExit was raised: it ends a program without showing its notes."""
    if isinstance(error, SystemExit):
        LOGGER.error("SystemExit(%r) %s", error.code, getattr(error, "__notes__", [""])[-1])


def _told(f: Callable[..., Any], origin: Origin, site: Site, first: int) -> Callable[..., Any]:
    # f, which first tells the record that it is called for: see `pipeline.meter.Beacon`
    records = iter(range(first, len(origin)))

    def call(*args: Any) -> Any:
        if BEACON.tell is not None:
            BEACON.tell(f"in {site.stage}, on {site.describe(origin, next(records))}")
        return f(*args)

    return call


def made_by(site: Site, rows: list[Any], origin: Origin, beneath: Block) -> Block:
    """The block of rows that a stage returned for the block beneath; for `made`, see `maker`."""
    made = maker(site, rows, origin)
    if made and any(row is None for row in beneath.rows()):
        made = beneath.made
    return Block(rows, origin, made)


def maker(
    site: Site,
    rows: list[Any],
    origin: Origin,
    first: int = 0,
    kinds: set[type] | None = None,
) -> str:
    """The stage in words, if it returned None as a row; else "".

    Callers look whether an earlier stage made the None, and this one handed it on.

    Args:
        site: the site of the stage.
        rows: the rows that it returned.
        origin: the provenance of the whole block.
        first: the number of the first of these rows in the block.
        kinds: the types of these rows, where they are known.

    Raises:
        ChainError: a row can be read only once, such as a generator.
    """
    kinds = set(map(type, rows)) if kinds is None else kinds
    once = {kind for kind in kinds if issubclass(kind, Iterator | AsyncIterator)}
    if once:
        i = next(i for i, row in enumerate(rows) if type(row) in once)
        error = ChainError(
            f"{site.stage} returned a {type(rows[i]).__name__} as a row, which can be read only "
            "once. Return list(...) of it, or use .flat_map if each of its items is a row."
        )
        site.annotate(error, origin, first + i)
        raise error
    return site.stage if type(None) in kinds else ""
