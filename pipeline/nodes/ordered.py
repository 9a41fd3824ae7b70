"""The node of an order: which row stands where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pipeline.block import Block, Int64s, Origin
from pipeline.nodes.node import Frontiers, Node, Over, Span, numbered
from pipeline.nodes.scope import Scope, Stage
from pipeline.sampling.order import Order
from pipeline.transforms.collate import Empty
from pipeline.types import At, Source


@dataclass(frozen=True, eq=False)
class Ordered(Over):
    """The rows beneath in the order of a shuffle, slice or repeat, which computes positions."""

    order: Order

    def written(self, seed: int) -> list[str]:
        return [*self.below.written(seed), f"  {self.order.written()}"]

    def under(self, scope: Scope) -> Scope:
        return scope.pinned if self.order.pins_path else scope

    @cached_property
    def length(self) -> int:
        return self.order.length(self.below.length)

    @cached_property
    def period(self) -> int:
        return self.order.period(self.below.length, self.below.period)

    @cached_property
    def _number(self) -> int:
        return len(self.below.stages)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return (*self.below.stages, self.order)

    def fingerprint(self) -> dict[str, str]:
        return {**self.below.fingerprint(), **numbered([self.order], self._number)}

    @cached_property
    def unchanged(self) -> Source | None:
        return self.below.unchanged

    def _resolved(self, at: At, scope: Scope) -> At:
        known = scope.order_sites.get(self._number)
        site = known or scope.order_site(self._number, self.order)
        return self.order.resolve(at, self.below.length, site)

    def read(self, at: At, scope: Scope) -> Block:
        return self.below.read(self._resolved(at, scope), self.under(scope))

    def stacked(self, at: At, scope: Scope, empty: Empty) -> Block:
        return self.below.stacked(self._resolved(at, scope), self.under(scope), empty)

    def origin(self, at: At, scope: Scope) -> Origin:
        return self.below.origin(self._resolved(at, scope), self.under(scope))

    def descend(self, at: At, scope: Scope, to: Node) -> At:
        if self is to:
            return at
        return self.below.descend(self._resolved(at, scope), self.under(scope), to)

    def moved(self, over: Node) -> Order | None:
        return None if self is over else self.below.moved(over) or self.order

    def ahead(self, at: At, scope: Scope) -> None:
        self.below.ahead(self._resolved(at, scope), self.under(scope))

    def positions(self, spans: list[Span], order: int, low: int, high: int, scope: Scope) -> Int64s:
        def beneath(order: int, low: int, high: int) -> Int64s:
            return self.below.positions(spans, order, low, high, self.under(scope))

        site = scope.order_site(self._number, self.order)
        return self.order.places(beneath, order, low, high, self.below.length, site)

    def varies(self, pinned: bool = False, values: bool = True) -> str | None:
        if self.order.reshuffles and not pinned:
            return f"{self.order.kind} '{self.order.name}'"
        return self.below.varies(pinned or self.order.pins, values)

    def chunks(self, own: bool) -> Int64s | None:
        return self.order.chunks(self.below.chunks(own))

    def orders(self, scope: Scope) -> Iterator[tuple[object, ...]]:
        site = scope.order_site(self._number, self.order)
        found = self.order.drawn(self.below.length, site)
        if found is not None:
            yield (*found, self)
        yield from self.below.orders(self.under(scope))

    @cached_property
    def random_orders(self) -> bool:
        return self.order.random or self.below.random_orders

    @cached_property
    def pinned_orders(self) -> bool:
        pinned = self.order.pins_path and self.below.random_orders
        return pinned or self.below.pinned_orders

    def touched(self, rows: int, head: str) -> Frontiers:
        rows = self.order.touched(rows, self.below.length) if rows else 0
        return self.below.touched(rows, head)

    def sized(self, head: str) -> Frontiers:
        return {} if self.order.sets_length else self.below.sized(head)

    def relatives(self, rows: Int64s, seed: int, attempt: int) -> Int64s | None:
        return self.below.relatives(rows, seed, attempt) if self.order.keeps_rows else None
