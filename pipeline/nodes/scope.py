"""What the stages of a part share at one place of a dataset: the seed and the path of names."""

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
    """One part at one place of a dataset: a part that stands at two places has two scopes.

    Args:
        part: the part, whose seed and `on_error` apply.
        path: names that the joins above give, outermost first. Provenance and random values
            depend on them.
        order: those of the names that seeds of orders depend on: the ones beneath the nearest
            pin above, so that a slice has the same members wherever it is put.

    Attributes:
        sites, order_sites: sites of the transforms and orders asked so far, by stage number.
        source, cache: names under which the meter counts reading the source and the cache.
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
        """The log of skipped rows."""
        return self.part.told

    @cached_property
    def pinned(self) -> Scope:
        """The scope under a pin: seeds of orders depend on none of the names above."""
        return Scope(self.part, self.path) if self.order else self

    def inside(self, part: Part, name: str = "") -> Scope:
        """The scope of a part beneath this one; without a name, the path stays as it is."""
        found = self._inside.get(name)
        if found is None:
            more = (name,) if name else ()
            found = Scope(part, (*self.path, *more), (*self.order, *more))
            self._inside[name] = found
        return found

    def order_site(self, number: int, order: Order) -> Site:
        """The site of an order that is stage `number` of the part."""
        found = self.order_sites.get(number)
        if found is None:
            found = Site(self.seed, self.order, self.components, titled(number, order))
            self.order_sites[number] = found
        return found

    def site(self, number: int, transform: Transform) -> tuple[Site, str]:
        """The site of a transform, and the name under which the meter counts it."""
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
