"""The questions that each node of a dataset answers, for itself and for what lies beneath it.

A node that stands on one other derives from `Over`, which hands every question on to the node
below: the subclass writes only what it changes.
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
    """The questions of a dataset. The defaults suit a node at the bottom of its part.

    Attributes:
        kind: what messages call it.
        streamed: whether its rows have no positions and are read lane by lane, in blocks.
        boxes: the boxes that a picture draws for it, besides those of its stages.
    """

    kind: str = ""
    streamed: bool = False
    boxes: tuple[str, ...] = ()

    def __reduce__(self) -> Any:
        # cached properties are left behind: the receiver computes its own
        return type(self), tuple(getattr(self, f.name) for f in fields(self) if f.init)  # pyright: ignore[reportArgumentType]

    @property
    def title(self) -> str:
        """The name that a picture of the dataset gives it."""
        return self.kind

    # ---- how many rows

    @cached_property
    def length(self) -> int:
        """Rows of an epoch, or ENDLESS. Streamed rows tell that of the indexed dataset beneath."""
        raise NotImplementedError

    @cached_property
    def period(self) -> int:
        """Rows until everything begins anew, in a new order. Less than `length` under repeat."""
        return self.length

    @cached_property
    def cycle(self) -> int:
        """Rows in which each record beneath comes once; beyond, only chance brings new rows."""
        return self.period

    # ---- what it is made of

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The orders and transforms of this part, from the bottom up."""
        return ()

    def cut(self, n: int) -> Node:
        """This node with only the first n of its own stages, if it can hold several."""
        return self

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """The parts beneath this one, by name; empty where it stands on a source."""
        return {}

    def beneath(self) -> Iterator[Node]:
        """This node and those beneath it in its part, from the top down."""
        yield self

    def components(self, path: Path) -> tuple[Component, ...]:
        """The sources beneath, each with the path of names that leads to it."""
        raise NotImplementedError

    @cached_property
    def unchanged(self) -> Source | None:
        """The source, if rows are its unchanged records in whatever order; else None."""
        return None

    def fingerprint(self) -> dict[str, str]:
        """Everything that the data depends on, by name."""
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
        """The calls that make this part, as a user writes them, one line each."""
        raise NotImplementedError

    @cached_property
    def mixture(self) -> tuple[str, Schedule] | None:
        """(Fingerprint key, schedule) of the mix that this part's stages stand on, if it is one."""
        return None

    @cached_property
    def counting(self) -> str:
        """The stage that makes rows streamed, such as "filter 'short'"; "" if they are indexed."""
        return ""

    @cached_property
    def counter(self) -> str:
        """The kind of that stage alone, such as "filter"."""
        return self.counting.partition(" ")[0]

    # ---- rows by position

    def read(self, at: At, scope: Scope) -> Block:
        """The rows at these positions; the caller checks bounds."""
        raise NotImplementedError

    @cached_property
    def rowwise(self) -> tuple[Any, ...]:
        """The unbroken run of row-by-row stages at the top, from the bottom up."""
        return ()

    def stacked(self, at: At, scope: Scope, empty: Empty) -> Block:
        """The same rows as `read`, stacked into arrays of `empty` where no row need be kept."""
        return self.read(at, scope)

    def origin(self, at: At, scope: Scope) -> Origin:
        """The provenance of rows, computed without reading them."""
        raise NotImplementedError

    def descend(self, at: At, scope: Scope, to: Node) -> At:
        """The positions of these rows in `to`, a node beneath in the same part."""
        return at

    def moved(self, over: Node) -> Order | None:
        """The lowest order between this node and `over`, one beneath it in its part, if any."""
        return None

    @property
    def dealt(self) -> int:
        """How many sources a run of rows takes only a few rows of each: those of a mix."""
        return 1

    @property
    def horizon(self) -> int:
        """How many upcoming rows the source wants to be told of, to read ahead; 0 for none."""
        return 0

    def ahead(self, at: At, scope: Scope) -> None:
        """Tell the source which rows will be read soon."""

    # ---- where and whether rows stay

    def positions(self, spans: list[Span], order: int, low: int, high: int, scope: Scope) -> Int64s:
        """The positions of some records in one epoch: int64[m], all of those in [low, high).

        Args:
            spans: the records.
            order: the epoch whose order is meant.
            low, high: the positions that matter; others may be missing.
            scope: the scope of this part.

        Raises:
            NoInverseError: positions are found only by going through every row.
        """
        raise NotImplementedError

    def varies(self, pinned: bool = False, values: bool = True) -> str | None:
        """The stage, in words, that makes one epoch differ from another; None if none does.

        Args:
            pinned: whether a stage above uses one epoch's order in every epoch.
            values: whether a difference in values counts, besides one in order.
        """
        return None

    def chunks(self, own: bool) -> Int64s | None:
        """Bounds of the chunks of rows that storage reads whole: int64[k + 1]; None without any.

        Args:
            own: whether to look the bounds up. If not, only the order of rows is checked.

        Raises:
            ChainError: rows are not in the order of a single source.
        """
        raise ChainError(
            f"shuffle(chunks=) needs one source's order, but {self.kind} joins several datasets. "
            "Chunk-shuffle each of them first; above, use shuffle(window=) or shuffle()."
        )

    def orders(self, scope: Scope) -> Iterator[tuple[object, ...]]:
        """For each random order, from the top down: what it is drawn from, then its node."""
        return iter(())

    @cached_property
    def random_orders(self) -> bool:
        """Whether some order beneath is random."""
        return any(part.node.random_orders for part in self.parts.values())

    @cached_property
    def pinned_orders(self) -> bool:
        """Whether a pin keeps some random order beneath independent of the joins above."""
        return any(part.node.pinned_orders for part in self.parts.values())

    def pin_path(self, over: Node) -> Node:
        """This tree with a pin on its node `over`: orders from there down ignore joins above."""
        return Pinned(self)

    # ---- how far it was drawn

    def touched(self, rows: int, head: str) -> Frontiers:
        """How many rows of each mix beneath the first `rows` rows have drawn.

        ENDLESS once a pass of a mix has ended: where the next begins depends on all rows of it.

        Args:
            rows: rows of this node, counted over all epochs.
            head: prefix of this part's keys in the fingerprint.
        """
        return {}

    def sized(self, head: str) -> Frontiers:
        """The mixes beneath whose whole schedule decides how many rows an epoch has: all ENDLESS.

        Whoever cuts an epoch into parts by its length draws all of these mixes with its first row.

        Args:
            head: prefix of this part's keys in the fingerprint.
        """
        return {}

    def kin(self, origin: Origin) -> Int64s | None:
        """The number of the mix's dataset that each row is of: int64[n]; None without a mix."""
        return None

    def relatives(self, rows: Int64s, seed: int, attempt: int) -> Int64s | None:
        """Candidates to replace stream rows of a mix: rows of the same dataset and its same epoch.

        A candidate is drawn from the row's place in its dataset, not in the mix, so that a later
        change of weights does not change it. Where this pass never deals the candidate, the row
        itself is returned.

        Args:
            rows: stream rows, int64[n].
            seed: what candidates are drawn from.
            attempt: counts the draws for these rows: each gives other candidates.

        Returns:
            int64[n]; None where rows are not those of a mix.
        """
        return None


@dataclass(frozen=True, eq=False)
class Over(Node):
    """A node on one other: a question that the subclass does not answer goes to the one below."""

    below: Node

    def under(self, scope: Scope) -> Scope:
        """The scope in which the node below is asked."""
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
    def dealt(self) -> int:
        return self.below.dealt

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

    def sized(self, head: str) -> Frontiers:
        return self.below.sized(head)

    def kin(self, origin: Origin) -> Int64s | None:
        return self.below.kin(origin)

    def relatives(self, rows: Int64s, seed: int, attempt: int) -> Int64s | None:
        return self.below.relatives(rows, seed, attempt)


@dataclass(frozen=True, eq=False)
class Pinned(Over):
    """The dataset beneath, its random orders independent of the joins that it is put into.

    What a scan found, which is kept by position, so stays true inside of joins.
    """

    def under(self, scope: Scope) -> Scope:
        return scope.pinned

    @cached_property
    def pinned_orders(self) -> bool:
        return self.below.random_orders


def numbered(stages: Sequence[Stage], first: int = 0) -> dict[str, str]:
    """Fingerprints of stages under their names: "stages.N", N from `first` on."""
    return {f"stages.{i}": stage.fingerprint() for i, stage in enumerate(stages, first)}


def written(transforms: Sequence[Stage]) -> list[str]:
    """Stages as a user writes them, one line each."""
    return [f"  {transform.written()}" for transform in transforms]
