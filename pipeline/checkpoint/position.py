"""Where a loader stands: one frozen value, from which everything that comes next follows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from pipeline.sampling.cursor import Cursor
from pipeline.sampling.cuts import Ranges, joined
from pipeline.sampling.sizes import Rule, agree

START = Cursor()
Exclusion = tuple[int, str, Ranges]  # (from_step, component, ranges of its records)


@dataclass(frozen=True, slots=True)
class Skip:
    """Skipped steps, with the rule and anchor that say which rows they mean.

    Attributes:
        steps: half-open ranges of steps.
        rule: how batches were cut when the steps were named; None in a state that does not tell.
        anchor: the cursor that steps were counted from.
    """

    steps: Ranges
    rule: Rule | None
    anchor: Cursor = START

    def counts_as(self, rule: Rule, anchor: Cursor, stop: int) -> bool:
        """Whether `rule`, counting from `anchor`, has the same batches up to step `stop`."""
        if self.rule is None or self.anchor != anchor:
            return False
        return self.rule[1:] == rule[1:] and agree(self.rule[0], rule[0], anchor.step, stop)


class Position(NamedTuple):
    """Where a loader stands.

    Attributes:
        cursor: where its stream of batches stands.
        anchor: the cursor that steps are counted from: the start or, where the batches before were
            of another size or rule, the cursor at which the present ones began.
        skips: steps that are skipped, in the order in which they were named.
        exclusions: records that are excluded.
    """

    cursor: Cursor = START
    anchor: Cursor = START
    skips: tuple[Skip, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()

    def at(self, cursor: Cursor) -> Position:
        """The position with another cursor."""
        return Position(cursor, self.anchor, self.skips, self.exclusions)

    def skipping(self, steps: Ranges, rule: Rule) -> Position:
        """The position with more steps skipped, which `rule` counts from the position's anchor."""
        if not steps:
            return self
        *before, last = self.skips or (Skip((), rule, self.anchor),)
        if (last.rule, last.anchor) != (rule, self.anchor):
            before, last = [*before, last], Skip((), rule, self.anchor)
        last = replace(last, steps=joined([*last.steps, *steps]))
        return self._replace(skips=(*before, last))
