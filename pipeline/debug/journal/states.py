"""States of a run's loader every so many steps: from the nearest, any past step is reached soon."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.debug.journal.line import Line
from pipeline.debug.journal.lines import LineLog, read_lines
from pipeline.errors import JournalError

_ELSEWHERE = ("dataset", "packages")  # what launches tell once


class Noted(NamedTuple):
    """A state, which launch noted it, and the data step of the next batch behind it.

    `stats` is what the data had cost until then: seconds of each stage, and of the workers. `move`
    counts how often the launch had moved its loader, or left something out: it holds for the lines
    with the same number. Journals of before have 0 everywhere.
    """

    launch: int
    step: int
    state: dict[str, Any]
    stats: dict[str, Any]
    move: int = 0


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

    def append(self, state: Mapping[str, Any], stats: Mapping[str, Any], move: int) -> None:
        self._at = state["step"]
        plain = {k: v for k, v in state.items() if k not in _ELSEWHERE}
        line = {"launch": self._launch, "step": self._at, "state": plain, "stats": dict(stats)}
        self._log.append(line | ({"move": move} if move else {}))

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
    values: dict[str, Any] = {"stats": {}, "move": 0, **line}
    wanted = {"launch": int, "step": int, "state": dict, "stats": dict, "move": int}
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


def left_out(state: Mapping[str, Any], below: int | None = None) -> str:
    """Which records and steps a state's loader leaves out, to be compared.

    Args:
        state: a state.
        below: look only at what holds for data steps below.

    >>> one, other = {"skips": [], "excluded": []}, {"excluded": [[20, "", [[7, 8]]]]}
    >>> left_out(one) == left_out({}), left_out(one) == left_out(other)
    (True, False)
    >>> left_out(one, 20) == left_out(other, 20)
    True
    """
    stop = 1 << 62 if below is None else below
    excluded = [entry for entry in state.get("excluded") or () if entry[0] < stop]
    ranges = [pair for skip in state.get("skips") or () for pair in _ranges(skip)]
    skips = [[first, min(last, stop)] for first, last in ranges if first < stop]
    return json.dumps([excluded, sorted(skips)])


def _ranges(skip: Any) -> Any:
    return skip[0] if isinstance(skip[0], list) else [skip]  # older states have the ranges alone


class States:
    """What one process noted of its loader, by the lines for which it holds.

    Args:
        noted: in the order written.
    """

    def __init__(self, noted: Iterable[Noted] = ()) -> None:
        self.noted = list(noted)
        self._all: dict[tuple[int, int], list[Noted]] = {}
        for each in self.noted:
            self._all.setdefault((each.launch, each.move), []).append(each)
        self._led = {key: rising(found) for key, found in self._all.items()}
        self._changes: dict[tuple[int, int], tuple[list[int], list[str]]] = {}

    def of(self, launch: int, move: int, *, led: bool = True) -> list[Noted]:
        """The states that were noted while a loader went on as it did to a line; steps rise.

        Args:
            launch, move: of the line.
            led: whether the line led to where the run stands. A launch of an older journal may have
                gone back without a word: of what it noted, that which led on is then left.
        """
        # where a state was lost, the one before it is the best there is
        key = next(((launch, m) for m in range(move, -1, -1) if (launch, m) in self._all), None)
        if key is None:
            return []
        found, kept = self._all[key], self._led[key]
        return kept if led or len(kept) == len(found) else sorted(found, key=_by_step)

    def nearest(self, line: Line, *, led: bool = True) -> Noted | None:
        """The state from which a line's batches are soonest reached."""
        return nearest(self.of(line.launch, line.move, led=led), line.data_step)

    def left_out(self, line: Line) -> str:
        """What the loader left out as it made a line's batches; "" where nothing was noted."""
        found = self.nearest(line)
        return left_out(found.state) if found else ""

    def changes(self, launch: int, move: int) -> tuple[list[int], list[str]]:
        """What was left out from which data step on, while a loader went on as it did to a line."""
        if (launch, move) not in self._changes:
            steps, texts = self._changes[launch, move] = [], []
            for each in self.of(launch, move):
                text = left_out(each.state)
                if not texts or text != texts[-1]:
                    steps.append(each.step)
                    texts.append(text)
        return self._changes[launch, move]


def _by_step(noted: Noted) -> int:
    return noted.step


def rising(states: Iterable[Noted]) -> list[Noted]:
    """Of states in the order written, those that led to the last: what it went back over is out."""
    found: list[Noted] = []
    for each in states:
        while found and found[-1].step >= each.step:
            found.pop()
        found.append(each)
    return found


def nearest(states: Sequence[Noted], step: int) -> Noted | None:
    """Of states whose steps rise, the last at or before a data step."""
    at = bisect_right(states, step, key=_by_step)
    return states[at - 1] if at else None
