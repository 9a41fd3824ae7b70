"""The commands of `python -m pipeline`: one file for each.

Begin with any of them: it parses options, calls a tool and returns an `Answer`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """The result of a command, which `python -m pipeline` prints.

    Attributes:
        data: the whole result as plain data, for `--json`.
        lines: the result for people.
        ok: whether the exit status is 0 rather than 1.
    """

    data: Any
    lines: Iterable[str]
    ok: bool = True
