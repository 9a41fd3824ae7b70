"""States of a run's loader every so many steps: from the nearest, any past step is reached soon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.debug.journal.lines import LineLog, read_lines
from pipeline.errors import JournalError

_ELSEWHERE = ("dataset", "packages")  # what launches tell once


class Noted(NamedTuple):
    """A state, which launch noted it, and the data step of the next batch behind it.

    `stats` is what the data had cost until then: seconds of each stage, and of the workers.
    """

    launch: int
    step: int
    state: dict[str, Any]
    stats: dict[str, Any]


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

    def append(self, state: Mapping[str, Any], stats: Mapping[str, Any]) -> None:
        self._at = state["step"]
        plain = {k: v for k, v in state.items() if k not in _ELSEWHERE}
        line = {"launch": self._launch, "step": self._at, "state": plain, "stats": dict(stats)}
        self._log.append(line)

    def sync(self) -> None:
        self._log.sync()

    def close(self) -> None:
        self._log.close()


def read_states(path: Path) -> list[Noted]:
    """All states in the order written.

    Raises:
        JournalError: a line is damaged.
    """
    return [_noted(path, number, line) for number, line in enumerate(read_lines(path), 1)]


def _noted(path: Path, number: int, line: dict[str, Any]) -> Noted:
    values: dict[str, Any] = {"stats": {}, **line}
    wanted = {"launch": int, "step": int, "state": dict, "stats": dict}
    wrong = [name for name, kind in wanted.items() if type(values.get(name)) is not kind]
    if not wrong and type(values["state"].get("step")) is not int:
        wrong = ["state"]
    if wrong:
        raise JournalError(
            f"line {number} of {path} is no state: its {wrong[0]} is missing, or not what a "
            f"Journal writes. Remove it: sed -i {number}d {path}. Steps behind it are then "
            "reached from the state before."
        )
    return Noted(*(values[name] for name in wanted))


def rising(states: Iterable[Noted]) -> list[Noted]:
    """Of states in the order written, those that led to the last: what it went back over is out."""
    found: list[Noted] = []
    for each in states:
        while found and found[-1].step >= each.step:
            found.pop()
        found.append(each)
    return found


def nearest(states: Iterable[Noted], step: int) -> Noted | None:
    """The state at or before a data step, nearest to it; of several, the last written."""
    before = [each for each in states if each.step <= step]
    return max(enumerate(before), key=lambda x: (x[1].step, x[0]))[1] if before else None
