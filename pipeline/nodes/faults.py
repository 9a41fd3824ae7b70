"""Which rows fail, where a dataset says that those are to be skipped, and how that is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from pipeline.block import Block, Int64s, Origin
from pipeline.errors import PipelineError, RecordError
from pipeline.types import Component, describe

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
    """Whether the row is at fault, and will be again: not the network, memory or the chain.

    >>> skippable(ValueError("bad JPEG")), skippable(OSError("timed out"))
    (True, False)
    """
    if isinstance(error, RecordError):
        return True
    return not isinstance(error, OSError | MemoryError | PipelineError)


def patiently(call: Callable[..., T], *args: Any) -> T:
    """`call(*args)`, tried again after a pause where input or output failed; then its error.

    What is missing or forbidden is so at once.

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
        except _FINAL:
            raise
        except OSError:
            time.sleep(pause)
    return call(*args)


def survivors(
    call: Callable[[Int64s], Block], which: Int64s
) -> tuple[list[tuple[Int64s, Block]], dict[int, Exception]]:
    """`call` on rows, halved until what fails is one row: what came of the others, and the errors.

    Raises:
        Exception: an error that is no row's fault.
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
    """Says once of each row that it was skipped, and why."""

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
        """Log the rows of `origin`, each with its error; records in a row as one range."""
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
        """Log a message unless it has been."""
        if message in self._said:
            return
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said.add(message)
        LOGGER.warning(message)


def _follows(origin: Origin, errors: Sequence[Exception], i: int) -> bool:
    # whether row i is the record after that of the row before, and fails alike
    return bool(
        origin.record[i] == origin.record[i - 1] + 1
        and origin.component[i] == origin.component[i - 1]
        and origin.epoch[i] == origin.epoch[i - 1]
        and type(errors[i]) is type(errors[i - 1])
    )
