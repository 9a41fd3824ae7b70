"""The commands of `python -m pipeline`: one file each.

Begin with any of them: each parses its options, calls a tool and gives an `Answer`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What a command found; `python -m pipeline` prints it and gives the exit status.

    Attributes:
        data: all of it as plain data, for `--json`.
        lines: for people.
        ok: whether what was asked holds: exit status 0, else 1.
    """

    data: Any
    lines: Iterable[str]
    ok: bool = True
