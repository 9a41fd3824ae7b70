"""The node of a stage that changes values and keeps one row at each position."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pipeline.block import Block
from pipeline.meter import METER
from pipeline.nodes.faults import patiently
from pipeline.nodes.node import Over, numbered
from pipeline.nodes.scope import Scope, Stage
from pipeline.types import At, Site, Transform


@dataclass(frozen=True, eq=False)
class Mapped(Over):
    """The rows beneath through a map, random_map or map_with_index."""

    transform: Transform

    @cached_property
    def _number(self) -> int:
        return len(self.below.stages)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return (*self.below.stages, self.transform)

    def fingerprint(self) -> dict[str, str]:
        return {**self.below.fingerprint(), **numbered([self.transform], self._number)}

    def read(self, at: At, scope: Scope) -> Block:
        block = self.below.read(at, scope)
        found = scope.sites.get(self._number) or scope.site(self._number, self.transform)
        known, name = found
        site = Site(known.seed, known.path, known.components, known.stage, at.index)
        return METER.timed(name, patiently, self.transform.apply, block, site)

    def varies(self, pinned: bool = False, values: bool = True) -> str | None:
        if self.transform.random and values:
            return f"{self.transform.kind} '{self.transform.name}'"
        return self.below.varies(pinned, values)
