"""The node of an order: which row stands where."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pipeline.block import Block, Int64s, Origin
from pipeline.nodes.node import Frontiers, Node, Over, Span, numbered
from pipeline.nodes.scope import Scope, Stage
from pipeline.sampling.order import Order
from pipeline.types import At, Source


@dataclass(frozen=True, eq=False)
class Ordered(Over):
    """The rows beneath in the order of a shuffle, slice, repeat, …: arithmetic on positions."""

    order: Order

    @cached_property
    def length(self) -> int:
        return self.order.length(self.below.length)

    @cached_property
    def period(self) -> int:
        return self.order.period(self.below.length, self.below.period)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return (*self.below.stages, self.order)

    def fingerprint(self) -> dict[str, str]:
        return {**self.below.fingerprint(), **numbered([self.order], len(self.below.stages))}

    @cached_property
    def unchanged(self) -> Source | None:
        return self.below.unchanged

    def _resolved(self, at: At, scope: Scope) -> At:
        site = scope.order_site(len(self.below.stages), self.order)
        return self.order.resolve(at, self.below.length, site)

    def read(self, at: At, scope: Scope) -> Block:
        return self.below.read(self._resolved(at, scope), scope)

    def origin(self, at: At, scope: Scope) -> Origin:
        return self.below.origin(self._resolved(at, scope), scope)

    def descend(self, at: At, scope: Scope, to: Node) -> At:
        if self is to:
            return at
        return self.below.descend(self._resolved(at, scope), scope, to)

    def moved(self, over: Node) -> Order | None:
        return None if self is over else self.below.moved(over) or self.order

    def ahead(self, at: At, scope: Scope) -> None:
        self.below.ahead(self._resolved(at, scope), scope)

    def positions(self, spans: list[Span], order: int, low: int, high: int, scope: Scope) -> Int64s:
        def beneath(order: int, low: int, high: int) -> Int64s:
            return self.below.positions(spans, order, low, high, scope)

        site = scope.order_site(len(self.below.stages), self.order)
        return self.order.places(beneath, order, low, high, self.below.length, site)

    def varies(self, pinned: bool = False, values: bool = True) -> str | None:
        if self.order.reshuffles and not pinned:
            return f"{self.order.kind} '{self.order.name}'"
        return self.below.varies(pinned or self.order.pins, values)

    def chunks(self, own: bool) -> Int64s | None:
        return self.order.chunks(self.below.chunks(own))

    @cached_property
    def seeded(self) -> bool:
        return self.order.seeded or self.below.seeded

    def touched(self, rows: int, head: str) -> Frontiers:
        rows = self.order.touched(rows, self.below.length) if rows else 0
        return self.below.touched(rows, head)

    def relatives(self, rows: Int64s, seed: int, attempt: int) -> Int64s | None:
        return self.below.relatives(rows, seed, attempt) if self.order.keeps_rows else None
