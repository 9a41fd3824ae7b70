"""The node of interleave: datasets in turn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pipeline.block import Int64s
from pipeline.nodes.concatenated import Concatenated
from pipeline.sampling.interleave import Turns


@dataclass(frozen=True, eq=False)
class Interleaved(Concatenated):
    """Indexed datasets in turn; an epoch is one epoch of each.

    Attributes:
        slots: how many take turns at a time.
        run: rows of one before the next has its turn.
    """

    slots: int
    run: int
    kind = "interleave"

    @cached_property
    def _turns(self) -> Turns:
        return Turns([part.length for part in self.parts.values()], self.slots, self.run)

    def rule(self) -> str:
        return f"cycle={self.slots}, run={self.run}, "

    def fingerprint(self) -> dict[str, str]:
        found = super().fingerprint()
        rule = f"cycle={min(self.slots, len(self.parts))} run={self.run}"
        return {**found, "root": f"{found['root']} {rule}"}

    def place(self, name: str, index: Int64s) -> Int64s:
        return self._turns.position(list(self.parts).index(name), index)

    def find(self, position: Int64s) -> tuple[Int64s, Int64s]:
        return self._turns.locate(position)
