"""Rows that fail: which they are, how the others are still read, and how skips are logged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Block, Int64s, Origin
from pipeline.errors import PipelineError, RecordError
from pipeline.meter import METER
from pipeline.nodes.node import Node
from pipeline.nodes.scope import Path, Scope
from pipeline.types import At, Component, Transform, describe

LOGGER = logging.getLogger("pipeline")
_REMEMBERED = 100_000
PAUSES = (0.05, 0.5)  # seconds between tries
_FINAL = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    PipelineError,  # a StorageError has been tried until its deadline
)
T = TypeVar("T")


def skippable(error: Exception) -> bool:
    """Whether an error is due to its row, so that it recurs: not to network, memory or chain.

    >>> skippable(ValueError("bad JPEG")), skippable(OSError("timed out"))
    (True, False)
    """
    if isinstance(error, RecordError):
        return True
    return not isinstance(error, OSError | MemoryError | PipelineError)


def transient(error: BaseException) -> bool:
    """Whether an error may not come again: an OSError, but of no missing or forbidden file."""
    return isinstance(error, OSError) and not isinstance(error, _FINAL)


def patiently(call: Callable[..., T], *args: Any) -> T:
    """Return `call(*args)`, trying again after a pause (see PAUSES) if it raises OSError.

    A file that is missing or forbidden is not tried again.

    >>> answers = iter([OSError("timed out"), 7])
    >>> def ask():
    ...     answer = next(answers)
    ...     if isinstance(answer, OSError):
    ...         raise answer
    ...     return answer
    >>> patiently(ask)
    7
    """
    for pause in PAUSES:
        try:
            return call(*args)
        except OSError as error:
            if not transient(error):
                raise
        time.sleep(pause)
    return call(*args)


def anew(read: Callable[[], Block], change: Callable[[Block], Block], stages: int = 1) -> Block:
    """Return `change(read())`, trying again after a pause if `change` raises OSError.

    Rows are read again each time: `change` may have changed them in place before it failed.

    Args:
        read: gives the rows.
        change: gives the result.
        stages: how many stages `change` consists of, each with tries of its own; those of the
            mixes above count as one.
    """
    for pause in PAUSES * stages:
        block = read()
        try:
            return change(block)
        except OSError as error:
            if not transient(error):
                raise
        time.sleep(pause)
    return change(read())


def halved(read: Callable[[At], Block], change: Callable[[Block, At], Block], at: At) -> Block:
    """Return `change(read(at), at)` as `anew` does, for a change that works row by row.

    After OSError each half of the rows is read and changed alone, so that one row that fails does
    not have all others tried again and again.
    """
    n = len(at.index)
    if n < 2:
        return anew(lambda: read(at), lambda block: change(block, at))
    block = read(at)
    try:
        return change(block, at)
    except OSError as error:
        if not transient(error):
            raise
    del block  # its memory is the halves'
    halves = [at.take(half) for half in np.array_split(np.arange(n), 2)]
    return Block.concat([halved(read, change, half) for half in halves])


def survivors(
    call: Callable[[Int64s], Block], which: Int64s
) -> tuple[list[tuple[Int64s, Block]], dict[int, Exception]]:
    """Call `call` on rows, halving those that fail until the bad ones are known one by one.

    Returns:
        (rows, their block) for each call that worked, and the error of each bad row.

    Raises:
        Exception: an error that is not due to a row.
    """
    if not len(which):
        return [], {}
    try:
        return [(which, call(which))], {}
    except Exception as error:
        if not skippable(error):
            raise
        if len(which) == 1:
            return [], {int(which[0]): error}
    good: list[tuple[Int64s, Block]] = []
    bad: dict[int, Exception] = {}
    for half in np.array_split(which, 2):
        some, failed = survivors(call, half)
        good += some
        bad |= failed
    return good, bad


class Skips:
    """Logs each skipped row once, with the reason."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(
        self, components: Sequence[Component], origin: Origin, i: int, error: Exception
    ) -> None:
        """Log row i of `origin`, whose evaluation raised `error`."""
        stage = next((f", {n}" for n in getattr(error, "__notes__", ()) if n.startswith("in ")), "")
        what = describe(components, origin, i)
        self.once(f"skipped {what}: {type(error).__name__}: {error}{stage}")

    def say_all(
        self, components: Sequence[Component], origin: Origin, errors: Sequence[Exception]
    ) -> None:
        """Log the rows of `origin`, each with its error; consecutive records as one range."""
        first = 0
        for i in range(1, len(origin) + 1):
            if i < len(origin) and _follows(origin, errors, i):
                continue
            if i - first == 1:
                self.say(components, origin, first, errors[first])
            else:
                error, last = errors[first], describe(components, origin, i - 1)
                run = f"{i - first} records, {describe(components, origin, first)} to {last}"
                self.once(f"skipped {run}: {type(error).__name__}: {error}")
            first = i

    def once(self, message: str) -> None:
        """Log a message unless it was logged before."""
        if message in self._said:
            return
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said.add(message)
        LOGGER.warning(message)


def _follows(origin: Origin, errors: Sequence[Exception], i: int) -> bool:
    # whether row i holds the record after that of row i - 1, and fails with the same kind of error
    return bool(
        origin.record[i] == origin.record[i - 1] + 1
        and origin.component[i] == origin.component[i - 1]
        and origin.epoch[i] == origin.epoch[i - 1]
        and type(errors[i]) is type(errors[i - 1])
    )


MOST_BAD = 1 << 20  # rows that are remembered
Epoch = tuple[Path, Path, int, int]
"""Where a part stands, how often it was drawn, and the epoch whose order holds."""

Pieces = list[tuple[Int64s, Block]]
"""Some of the rows asked for: which, and what reading them gave."""


def good_rows(node: Node, at: At, scope: Scope) -> tuple[Pieces, dict[int, Exception]]:
    """The rows of a node that can be read, and the errors of the others, which are logged."""
    good, bad = survivors(lambda i: node.read(at.take(i), scope), np.arange(len(at.index)))
    if bad:
        origin = node.origin(at.take(list(bad)), scope)
        scope.skips.say_all(scope.components, origin, list(bad.values()))
    return good, bad


class BadRows:
    """The rows of an indexed part that are known to fail, so that none is looked at twice."""

    def __init__(self) -> None:
        self._after: dict[Epoch, dict[int, int]] = {}  # for each bad row, the next one to try
        self._errors: dict[Epoch, Exception] = {}

    def add(self, epoch: Epoch, index: int, error: Exception) -> None:
        """Remember that a row fails."""
        if sum(map(len, self._after.values())) >= MOST_BAD:
            self._after.clear()
        self._after.setdefault(epoch, {})[index] = index + 1
        self._errors.setdefault(epoch, error)

    def drop(self, rows: Iterable[tuple[Epoch, int]]) -> None:
        """Forget that rows fail, so that they are tried again."""
        for epoch, index in rows:
            self._after.get(epoch, {}).pop(index, None)

    def among(self, epochs: list[Epoch], at: At) -> NDArray[np.bool_]:
        """bool[n]: which rows are known to fail."""
        if not self._after:
            return np.zeros(len(at.index), bool)
        known = zip(epochs, at.index.tolist(), strict=True)
        return np.array([i in self._after.get(epoch, ()) for epoch, i in known], bool)

    def next(self, epoch: Epoch, index: int, first: int, end: int) -> int:
        """The first row not known to fail, from `index` on and then from `first` on.

        Args:
            epoch: the epoch looked at.
            index: the row to begin with.
            first, end: bounds of the epoch's rows.

        Raises:
            Exception: all of them fail; the error of one of them.
        """
        found = self._after_run(epoch, index)
        if found >= end:
            found = self._after_run(epoch, first)
            if found >= index:
                raise self._errors[epoch]
        return found

    def _after_run(self, epoch: Epoch, index: int) -> int:
        after, passed = self._after.get(epoch, {}), list[int]()
        while index in after:
            passed.append(index)
            index = after[index]
        for i in passed:  # so that the next look-up takes one step
            after[i] = index
        return index


def in_order(pieces: Pieces) -> Block:
    """One block of all pieces, its rows in the order in which they were asked for."""
    if not pieces:
        return Block([], Origin.none())
    rows = np.concatenate([rows for rows, _ in pieces])
    return Block.concat([block for _, block in pieces]).take(np.argsort(rows))


def applied(transform: Transform, number: int, block: Block, scope: Scope) -> Block:
    """A block of streamed rows after stage `number` of its part.

    Rows that fail are left out where the part says on_error("skip").
    """
    site, name = scope.sites.get(number) or scope.site(number, transform)
    if not scope.skipping:
        return METER.timed(name, transform.apply, block, site)
    bad = dict[int, Exception]()

    def apply(rows: Int64s) -> Block:
        def skip(i: int, error: Exception) -> bool:
            bad[int(rows[i])] = error
            return skippable(error)

        some = block if len(rows) == len(block) else block.take(rows)
        return METER.timed(name, transform.apply, some, replace(site, skip=skip))

    # functions of rows say by themselves which rows fail; of other transforms it is found out
    good, others = survivors(apply, np.arange(len(block)))
    for row, error in (bad | others).items():
        scope.skips.say(site.components, block.origin, row, error)
    return Block.concat([piece for _, piece in good]) if good else apply(np.zeros(0, np.int64))
