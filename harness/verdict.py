"""What `blame` answers: whose fault it was, what that rests on, and the command that helps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from harness.past import Past


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is to blame.

    Attributes:
        kind: "data", "hardware", "optimizer" or "undecided".
        step: where it happened: the step whose data, bits or update are to blame.
        summary: one sentence.
        evidence: what it rests on.
        documents: those to blame, the most suspicious first: name, share explained, loss, text.
        command: what leaves it out or does it over; "" if undecided.
        evaluations: how often the step was computed with something left out.
    """

    kind: str
    step: int
    summary: str
    evidence: tuple[str, ...] = ()
    documents: tuple[dict[str, Any], ...] = ()
    command: str = ""
    evaluations: int = 0

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return dataclasses.asdict(self)


def command(past: Past, what: str) -> str:
    run = past.run.path
    verb, _, rest = what.partition(" ")
    return f"python -m harness {verb} --run {run} {rest} --fork {run}-fork"
