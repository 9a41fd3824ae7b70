"""The answer of `blame`: the cause, the evidence, and a command that helps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from harness.past import Past


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The cause of a spike.

    Attributes:
        kind: "data", "hardware", "optimizer" or "undecided".
        step: the step whose data, bits or update are the cause.
        summary: one sentence.
        evidence: what the verdict is based on.
        documents: those that are the cause, the most suspicious first: name, share explained, loss,
            text.
        command: leaves the cause out, or redoes the steps; "" if undecided.
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
        """The verdict as plain data."""
        return dataclasses.asdict(self)


def command(past: Past, what: str) -> str:
    run = past.run.path
    verb, _, rest = what.partition(" ")
    return f"python -m harness {verb} --run {run} {rest} --fork {run}-fork"
