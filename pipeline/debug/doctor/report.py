"""What the doctor found: twelve rows, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

SAME = "same order twice"
RESUME = "resume"
SECOND = "second resume"
EDGE = "resume at the epoch's edge"
UNCHANGED = "state unchanged by use"
JSON = "state through JSON"
WORKERS = "worker count does not matter"
HOSTS = "host count does not matter"
ONCE = "every record once"
EPOCHS = "epochs differ"
KILLED = "worker killed: error or recovery, never silence"
NOTHING = "nothing left behind"
LAWS = (
    *(SAME, RESUME, SECOND, EDGE, UNCHANGED, JSON),
    *(WORKERS, HOSTS, ONCE, EPOCHS, KILLED, NOTHING),
)

Verdict = Literal["held", "broken", "unclaimed"]
_SIGNS = {"held": "✔", "broken": "✘", "unclaimed": "–"}
_SHOWN = 6  # records of a list, in the lines for people


@dataclass(frozen=True)
class Row:
    """One law's verdict.

    Attributes:
        law: one of `LAWS`.
        verdict: "unclaimed" where the loader does not promise it, or it was not asked for.
        step: the first data step, from 0, at which something else came.
        came, expected: records of that step's batch, or what happened instead.
        note: why, in words: records lost and repeated, what was resumed.
    """

    law: str
    verdict: Verdict
    step: int | None = None
    came: Any = None
    expected: Any = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """The row as plain data, its note aside."""
        parts = {"law": self.law, "verdict": self.verdict, "step": self.step}
        return {**parts, "came": self.came, "expected": self.expected}

    def __str__(self) -> str:
        line = f"{_SIGNS[self.verdict]} {self.law}"
        if self.verdict == "unclaimed":
            return f"{line}: does not claim it ({self.note})"
        if self.verdict == "held":
            return line
        where = "" if self.step is None else f" step {self.step}:"
        want = "" if self.expected is None else f", should have come {listed(self.expected)}"
        return f"{line}:{where} came {listed(self.came)}{want}{self.note and '; '}{self.note}"


@dataclass(frozen=True)
class Report:
    """What `examine` found.

    Attributes:
        rows: one a law, in the order of `LAWS`.
    """

    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether no law that the loader claims is broken."""
        return all(row.verdict != "broken" for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """The rows as plain data."""
        return {"rows": [row.as_json() for row in self.rows]}

    def __getitem__(self, law: str) -> Row:
        return next(row for row in self.rows if row.law == law)

    def __str__(self) -> str:
        return "\n".join(map(str, self.rows))


def listed(value: Any) -> str:
    """Records of a batch in a line; text as it is.

    >>> listed([1, 2, 3, 4, 5, 6, 7, 8]), listed("the end")
    ('[1, 2, 3, 4, 5, 6, … 2 more]', 'the end')
    """
    if not isinstance(value, list | tuple):
        return str(value)
    more = f", … {len(value) - _SHOWN} more" if len(value) > _SHOWN else ""
    return f"[{', '.join(map(str, value[:_SHOWN]))}{more}]"
