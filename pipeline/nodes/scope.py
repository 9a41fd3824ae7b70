"""What the stages of one part of a dataset share: a seed, and the names that lead there."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.sampling.order import Order
from pipeline.types import Component, Site, Transform

if TYPE_CHECKING:
    from pipeline.nodes.faults import Skips
    from pipeline.nodes.part import Part

Path = tuple[str, ...]
Stage = Order | Transform


class Scope:
    """One part at one place of a dataset; made once for each place.

    Args:
        part: whose seed and `on_error` hold.
        path: the names of joins that lead to the part: provenance and random values depend on it.
        order: the names that the seeds of orders depend on: those from the nearest pin above on,
            so that a slice has the same members wherever it is put.

    Attributes:
        sites, order_sites: what stages that were asked for may know, by their numbers.
        source, cache: what the meter calls reading these.
    """

    def __init__(self, part: Part, path: Path = (), order: Path = ()) -> None:
        self.part, self.path, self.order = part, path, order
        self.seed, self.skipping = part.seed, part.on_error == "skip"
        self.components: tuple[Component, ...] = part.node.components(path)
        self._inside: dict[str, Scope] = {}
        self.sites: dict[int, tuple[Site, str]] = {}
        self.order_sites: dict[int, Site] = {}
        self.source, self.cache = self._metered("source"), self._metered("cache")

    @property
    def skips(self) -> Skips:
        """Where rows that fail are told of."""
        return self.part.told

    @cached_property
    def pinned(self) -> Scope:
        """The same part with the orders that it has outside of any join."""
        return Scope(self.part, self.path) if self.order else self

    def inside(self, part: Part, name: str = "") -> Scope:
        """The scope of a part that this one stands on; without a name it has the same names."""
        found = self._inside.get(name)
        if found is None:
            more = (name,) if name else ()
            found = Scope(part, (*self.path, *more), (*self.order, *more))
            self._inside[name] = found
        return found

    def order_site(self, number: int, order: Order) -> Site:
        """What the order that is stage `number` of the part may know."""
        found = self.order_sites.get(number)
        if found is None:
            found = Site(self.seed, self.order, self.components, titled(number, order))
            self.order_sites[number] = found
        return found

    def site(self, number: int, transform: Transform) -> tuple[Site, str]:
        """What a transform may know besides its rows, and what the meter calls it."""
        found = self.sites.get(number)
        if found is None:
            title = titled(number, transform)
            found = Site(self.seed, self.path, self.components, title), self._metered(title)
            self.sites[number] = found
        return found

    def _metered(self, what: str) -> str:
        return f"{'/'.join(self.path)}: {what}" if self.path else what


def titled(number: int, stage: Stage) -> str:
    """A stage for messages: "stage 3: map 'tokenize'"."""
    return f"stage {number}: {stage.kind} {stage.name!r}"
