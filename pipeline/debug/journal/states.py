"""States of a run's loader every so many steps: from the nearest, any past step is reached soon."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.debug.journal.lines import LineLog, read_lines
from pipeline.errors import JournalError

_ELSEWHERE = ("dataset", "packages")  # what launches tell once


class Noted(NamedTuple):
    """A state, which launch noted it, and the data step of the next batch behind it."""

    launch: int
    step: int
    state: dict[str, Any]


class StateLog:
    """The states as their one writer sees them.

    Args:
        path: of the file.
        launch: of this process start.
        every: data steps between two of them.
    """

    def __init__(self, path: Path, launch: int, every: int) -> None:
        self._log, self._launch, self._every = LineLog(path), launch, every
        self._at = -(1 << 62)

    def is_due(self, step: int) -> bool:
        """Whether so many data steps went by since the last."""
        return step - self._at >= self._every

    def append(self, state: Mapping[str, Any]) -> None:
        self._at = state["step"]
        plain = {k: v for k, v in state.items() if k not in _ELSEWHERE}
        self._log.append({"launch": self._launch, "step": self._at, "state": plain})

    def sync(self) -> None:
        self._log.sync()

    def close(self) -> None:
        self._log.close()


def read_states(path: Path) -> list[Noted]:
    """All states in the order written.

    Raises:
        JournalError: a line is damaged.
    """
    try:
        return [Noted(x["launch"], x["step"], x["state"]) for x in read_lines(path)]
    except (KeyError, TypeError) as e:
        raise JournalError(f"{path} has a line that is no state: {e!r}. Remove that line.") from e


def nearest(states: list[Noted], launch: int, step: int) -> dict[str, Any] | None:
    """The state at or before a data step that a launch noted: of several, the last written.

    A launch may go back, or leave records out: what it noted later at the same step holds.
    """
    best: Noted | None = None
    for each in states:
        if each.launch == launch and each.step <= step and (best is None or each.step >= best.step):
            best = each
    return None if best is None else best.state
