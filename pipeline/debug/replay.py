"""Making a run's batches again and comparing them with its journal. Needs no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.dataset import Dataset
from pipeline.debug.journal.digests import follows
from pipeline.debug.journal.line import Line
from pipeline.debug.journal.reading import Run
from pipeline.errors import JournalError


@dataclass(frozen=True)
class Proof:
    """The result of a replay.

    Attributes:
        folder: of the run.
        steps: the steps that were asked for.
        proved: how many of them are equal, from the first on.
        differs: a description of the first that is not; "" if all are equal.
        step: the number of that one, or None.
    """

    folder: str
    steps: range
    proved: int
    differs: str = ""
    step: int | None = None

    @property
    def ok(self) -> bool:
        return not self.differs

    def as_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            "run": self.folder,
            "steps": [self.steps.start, self.steps.stop],
            "proved": self.proved,
            "equal": self.ok,
            "first_differing_step": self.step,
            "difference": self.differs or None,
        }

    def lines(self) -> list[str]:
        """The result for people."""
        n = len(self.steps)
        if self.ok:
            span = f"{self.steps.start:,} to {self.steps.stop - 1:,}"
            return [f"{n:,} steps proved equal, {span}: their batches, made again, are the same"]
        return [self.differs, f"{self.proved:,} of {n:,} steps before it are proved equal"]


def replay(run: Run, dataset: Dataset, steps: range) -> Proof:
    """Make the batches of steps again, and compare their digests with the journal's.

    A step with two lines, because of a crash, must equal both.

    Args:
        run: the run with the journal.
        dataset: the one that it was trained on.
        steps: the steps to prove; each must have a line.

    Raises:
        MismatchError: it is another dataset.
        JournalError: a step has no line, or its digest is of an older kind.
    """
    for step in (steps.start, steps.stop - 1):
        run.line(step)
    for proved, step in enumerate(steps):
        current = run.line(step)
        for line in run.ledger.of_step(step):
            if not run.proves(line):
                raise JournalError(
                    f"step {step:,} of {run.folder} has a digest of the batch on devices, from "
                    "before the journal: python -m harness replay proves it."
                )
            was, now = run.digest(line), run.remade(dataset, line)
            if was != now:
                said = f"batch digest {was} in the journal, {now} now"
                which = f"step {step:,} differs from the line of launch {line.launch}: "
                return Proof(str(run.folder), steps, proved, which + said, step)
        if run.alone and not follows(_chain_before(run, current), current.digest, current.chain):
            said = f"step {step:,}: its chain {current.chain} does not follow from the step before"
            return Proof(str(run.folder), steps, proved, said, step)
    return Proof(str(run.folder), steps, len(steps))


def _chain_before(run: Run, line: Line) -> str:
    number = run.ledger.lineage.parent(line.number)
    return run.ledger.at(number).chain if number >= 0 else ""
