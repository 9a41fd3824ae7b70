"""What is asked of a dataset: each node answers for itself and for what lies beneath it.

A node that stands on one other writes only what it changes; `Over` hands on all other questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.block import Block, Int64s, Origin
from pipeline.errors import ChainError
from pipeline.nodes.scope import Path, Scope, Stage
from pipeline.sampling.order import Order
from pipeline.sampling.schedule import Schedule
from pipeline.transforms import versions
from pipeline.transforms.collate import Empty
from pipeline.types import ENDLESS, At, Component, Source

if TYPE_CHECKING:
    from pipeline.nodes.part import Part

Span = tuple[str, int, int]
"""Records of a source: (component's names joined by "/", first record, end)."""

Frontiers = dict[str, int]
"""The first row of each mix that nothing has drawn, by the mix's key in the fingerprint."""


class Node:
    """A dataset's questions. The defaults are those of a node on which a part begins.

    Attributes:
        kind: for messages.
        streamed: whether its rows have no positions: lanes of blocks give them as they come.
        boxes: what a picture of the dataset shows of it, beside its stages.
    """

    kind: str = ""
    streamed: bool = False
    boxes: tuple[str, ...] = ()

    def __reduce__(self) -> Any:
        # what was found out since it was made stays here
        return type(self), tuple(getattr(self, f.name) for f in fields(self) if f.init)  # pyright: ignore[reportArgumentType]

    @property
    def title(self) -> str:
        """What a picture of the dataset calls it."""
        return self.kind

    # ---- how many rows

    @cached_property
    def length(self) -> int:
        """Rows an epoch; ENDLESS if it never ends. Beneath streamed rows, of what is indexed."""
        raise NotImplementedError

    @cached_property
    def period(self) -> int:
        """Rows after which everything begins anew, in another order."""
        return self.length

    @cached_property
    def cycle(self) -> int:
        """Rows after which nothing new comes but by chance."""
        return self.period

    # ---- what it is made of

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The orders and transforms of this part, from the bottom up."""
        return ()

    def cut(self, n: int) -> Node:
        """The node with the first n of its own stages, where it holds several."""
        return self

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """The named parts that this part stands on; none where it stands on one source."""
        return {}

    def beneath(self) -> Iterator[Node]:
        """This node and those beneath it in its part, from the top down."""
        yield self

    def components(self, path: Path) -> tuple[Component, ...]:
        """The sources, with the names that lead to them."""
        raise NotImplementedError

    @cached_property
    def unchanged(self) -> Source | None:
        """The source whose records rows are, in any order but as they are; None if they differ."""
        return None

    def fingerprint(self) -> dict[str, str]:
        """What the data depends on, by name."""
        raise NotImplementedError

    @cached_property
    def packages(self) -> dict[str, str]:
        """Versions of the installed packages that functions here and beneath use."""
        names = (name for stage in self.stages for name in stage.packages)
        found = versions(names)
        for part in self.parts.values():
            found |= part.node.packages
        return found

    def written(self, seed: int) -> list[str]:
        """What people wrote to make this part, a line each."""
        raise NotImplementedError

    @cached_property
    def mixture(self) -> tuple[str, Schedule] | None:
        """The schedule's key in the fingerprint, and the schedule, of a mix with stages on it."""
        return None

    @cached_property
    def counting(self) -> str:
        """The kind and name, in words, of what makes rows streamed; "" if they are indexed."""
        return ""

    @cached_property
    def counter(self) -> str:
        """The kind alone."""
        return self.counting.partition(" ")[0]

    # ---- rows by position

    def read(self, at: At, scope: Scope) -> Block:
        """Rows by position; bounds are the caller's business."""
        raise NotImplementedError

    @cached_property
    def rowwise(self) -> tuple[Any, ...]:
        """The stages at the top that take rows one by one, from the bottom up."""
        return ()

    def stacked(self, at: At, scope: Scope, empty: Empty) -> Block:
        """The same rows, in columns made by `empty` where that spares keeping each of them."""
        return self.read(at, scope)

    def origin(self, at: At, scope: Scope) -> Origin:
        """Provenance of rows, by arithmetic."""
        raise NotImplementedError

    def descend(self, at: At, scope: Scope, to: Node) -> At:
        """Where rows stand in a node beneath, of the same part."""
        return at

    def moved(self, over: Node) -> Order | None:
        """The order, if any, that stands between this node and one beneath it in its part."""
        return None

    @property
    def horizon(self) -> int:
        """How many rows to come its source wants to know of; 0 for none."""
        return 0

    def ahead(self, at: At, scope: Scope) -> None:
        """Tell the source of rows that will be read."""

    # ---- where and whether rows stay

    def positions(self, spans: list[Span], order: int, low: int, high: int, scope: Scope) -> Int64s:
        """Where records stand in one epoch's order, at least those in [low, high).

        Args:
            spans: the records.
            order: the epoch whose order holds.
            low, high: of the epoch's positions.
            scope: of this part.

        Raises:
            NoInverseError: only looking at every row tells.
        """
        raise NotImplementedError

    def varies(self, pinned: bool = False, values: bool = True) -> str | None:
        """The stage, in words, that makes one epoch differ from another; None if none does.

        Args:
            pinned: whether what stands above holds one epoch's order in all of them.
            values: whether other values count too, or only another order.
        """
        return None

    def chunks(self, own: bool) -> Int64s | None:
        """Bounds of the runs of rows that storage reads whole; None where it has none.

        Args:
            own: whether the bounds are wanted, or only whether rows stand in a source's order.

        Raises:
            ChainError: rows do not lie as those of one source do.
        """
        raise ChainError(
            f"shuffle(chunks=) needs one source's order, but {self.kind} joins several datasets. "
            "Chunk-shuffle each of them first; above, use shuffle(window=) or shuffle()."
        )

    def orders(self, scope: Scope) -> Iterator[tuple[object, ...]]:
        """What each random order beneath is drawn from, and the order itself, from the top down."""
        return iter(())

    @cached_property
    def random_orders(self) -> bool:
        """Whether some order beneath is random."""
        return any(part.node.random_orders for part in self.parts.values())

    @cached_property
    def pinned_orders(self) -> bool:
        """Whether random orders beneath are those that their dataset has outside of any join."""
        return any(part.node.pinned_orders for part in self.parts.values())

    def pin_path(self, over: Node) -> Node:
        """The tree with the orders from one of its nodes on pinned to those it has alone."""
        return Pinned(self)

    # ---- how far it was drawn

    def touched(self, rows: int, head: str) -> Frontiers:
        """How far the first rows have drawn each mix beneath.

        ENDLESS where a pass of a mix has ended: where the next one began depends on all its rows.

        Args:
            rows: how many, over all epochs.
            head: what stands before names in this part's fingerprint.
        """
        return {}

    def kin(self, origin: Origin) -> Int64s | None:
        """Which dataset of a mix rows are of: int64[n]; None where there is no mix."""
        return None

    def relatives(self, rows: Int64s, seed: int, attempt: int) -> Int64s | None:
        """For stream rows of a mix, others of the same dataset and of that one's epoch.

        They are drawn by what stands in a row, not by where it stands, so that they stay what they
        are when weights to come change. A row stays as it is where what was drawn is not dealt.
        None where rows are not those of a mix.
        """
        return None


@dataclass(frozen=True, eq=False)
class Over(Node):
    """A node on another one: it answers as that does, but for what the subclass says."""

    below: Node

    def under(self, scope: Scope) -> Scope:
        """The scope of what lies beneath."""
        return scope

    @cached_property
    def length(self) -> int:
        return self.below.length

    @cached_property
    def period(self) -> int:
        return self.below.period

    @cached_property
    def cycle(self) -> int:
        return self.period if self.period < ENDLESS else self.below.cycle

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return self.below.stages

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        return self.below.parts

    def beneath(self) -> Iterator[Node]:
        yield self
        yield from self.below.beneath()

    def components(self, path: Path) -> tuple[Component, ...]:
        return self.below.components(path)

    def fingerprint(self) -> dict[str, str]:
        return self.below.fingerprint()

    def written(self, seed: int) -> list[str]:
        own = self.stages[len(self.below.stages) :]
        return [*self.below.written(seed), *written(own)]

    @cached_property
    def mixture(self) -> tuple[str, Schedule] | None:
        return self.below.mixture

    @cached_property
    def counting(self) -> str:
        return self.below.counting

    @cached_property
    def counter(self) -> str:
        return self.below.counter

    def read(self, at: At, scope: Scope) -> Block:
        return self.below.read(at, self.under(scope))

    def origin(self, at: At, scope: Scope) -> Origin:
        return self.below.origin(at, self.under(scope))

    def descend(self, at: At, scope: Scope, to: Node) -> At:
        return at if self is to else self.below.descend(at, self.under(scope), to)

    def moved(self, over: Node) -> Order | None:
        return None if self is over else self.below.moved(over)

    @property
    def horizon(self) -> int:
        return self.below.horizon

    def ahead(self, at: At, scope: Scope) -> None:
        self.below.ahead(at, self.under(scope))

    def positions(self, spans: list[Span], order: int, low: int, high: int, scope: Scope) -> Int64s:
        return self.below.positions(spans, order, low, high, self.under(scope))

    def varies(self, pinned: bool = False, values: bool = True) -> str | None:
        return self.below.varies(pinned, values)

    def chunks(self, own: bool) -> Int64s | None:
        return self.below.chunks(own)

    def orders(self, scope: Scope) -> Iterator[tuple[object, ...]]:
        return self.below.orders(self.under(scope))

    @cached_property
    def random_orders(self) -> bool:
        return self.below.random_orders

    @cached_property
    def pinned_orders(self) -> bool:
        return self.below.pinned_orders

    def pin_path(self, over: Node) -> Node:
        if self is over:
            return Pinned(self)
        return replace(self, below=self.below.pin_path(over))

    def touched(self, rows: int, head: str) -> Frontiers:
        return self.below.touched(rows, head)

    def kin(self, origin: Origin) -> Int64s | None:
        return self.below.kin(origin)

    def relatives(self, rows: Int64s, seed: int, attempt: int) -> Int64s | None:
        return self.below.relatives(rows, seed, attempt)


@dataclass(frozen=True, eq=False)
class Pinned(Over):
    """The dataset beneath with the orders that it has alone, whatever joins it is put into.

    What a scan found out of its rows, by position, then stays true.
    """

    def under(self, scope: Scope) -> Scope:
        return scope.pinned

    @cached_property
    def pinned_orders(self) -> bool:
        return self.below.random_orders


def numbered(stages: Sequence[Stage], first: int = 0) -> dict[str, str]:
    """Fingerprints of stages by name, counted from the bottom of their part."""
    return {f"stages.{i}": stage.fingerprint() for i, stage in enumerate(stages, first)}


def written(transforms: Sequence[Stage]) -> list[str]:
    """Transforms as people write them, a line each."""
    return [f"  {transform.written()}" for transform in transforms]
