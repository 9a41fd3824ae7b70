"""What each start of a run noted, read and held against what a Journal writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.debug.journal.lines import read_lines
from pipeline.errors import JournalError


def read_launches(path: Path) -> dict[int, dict[str, Any]]:
    """The starts of one process by their number; {} where there is no file.

    Raises:
        JournalError: a line is damaged.
    """
    found: dict[int, dict[str, Any]] = {}
    for i, line in enumerate(read_lines(path)):
        for name, good in _GOOD.items():
            if name in line and not good(line[name]):
                raise JournalError(
                    f"line {i + 1} of {path} is damaged: its {name} is {line[name]!r:.80}. Take it "
                    "back from a copy."
                )
        found[line.get("launch", i)] = line
    return found


def no_launch(path: Path, launch: int) -> JournalError:
    """The error that the line of a launch was lost: nothing then tells about its steps."""
    return JournalError(
        f"{path} has no line of launch {launch}, though the ledger beside it has steps of it: "
        "nothing says which dataset, batch size and hosts they had. Take it back from a copy."
    )


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _sizes(value: Any) -> bool:
    return _whole(value) or (_pairs(value) and len(value) > 0)


def _pairs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(map(_whole, pair)) for pair in value
    )


_GOOD: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("launch", "step", "host"), _whole),
    "hosts": lambda value: _whole(value) and value > 0,
    "batch_size": _sizes,
    "share": _pairs,
    "steps": lambda value: value is None or _whole(value),
    "dataset": lambda value: isinstance(value, dict),
    "data": lambda value: value is None or isinstance(value, str),
    "remainder": lambda value: value in ("keep", "drop", "pad"),
}
