"""A tree of nodes up to the next join, with what holds for all of it: seed, lanes, on_error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from pipeline.block import Block, Int64s, Origin
from pipeline.errors import ScanError
from pipeline.nodes.blocks import Blocks
from pipeline.nodes.faults import BadRows, Epoch, Skips, good_rows, in_order
from pipeline.nodes.mapped import Mapped
from pipeline.nodes.node import Frontiers, Node, Span
from pipeline.nodes.ordered import Ordered
from pipeline.nodes.scope import Path, Scope, Stage
from pipeline.nodes.streamed import Ask, Here, Reader, Streamed
from pipeline.sampling.cursor import Lane
from pipeline.sampling.order import Order
from pipeline.sampling.repeat import Repeat
from pipeline.sampling.scanned import Scanned, differences
from pipeline.transforms.collate import Empty
from pipeline.types import ENDLESS, At, Component, Transform

FEW = 16  # rows that fail up to which none is remembered
MOST_AHEAD = 256  # rows that are read together in search of one that does not fail
HINTS = 4096  # positions of those to come that a source is told


@dataclass(frozen=True, eq=False)
class Part:
    """What a Dataset holds, and what a join holds of each dataset: frozen, read by any process.

    Attributes:
        node: the topmost node.
        seed: what every random stage's seed is derived from.
        lanes: of streamed rows, L; else 1.
        on_error: "raise", or "skip" what fails: streamed rows are left out, for an indexed one
            stands the next good row of the epoch.
    """

    node: Node
    seed: int
    lanes: int = 1
    on_error: str = "raise"

    def __reduce__(self) -> Any:
        return Part, (self.node, self.seed, self.lanes, self.on_error)

    # ---- with one more stage

    def ordered(self, order: Order) -> Part:
        """The part with an order on it."""
        return replace(self, node=Ordered(self.node, order))

    def repeated(self, repeat: Repeat) -> Part:
        """The part epoch after epoch; of streamed rows, of what lies beneath them."""
        node = self.node
        more = cast(Streamed, node).repeated(repeat) if node.streamed else Ordered(node, repeat)
        return replace(self, node=more)

    def transformed(self, transform: Transform) -> Part:
        """The part with a transform on it."""
        if self.node.streamed:
            more: Node = cast(Streamed, self.node).transformed(transform)
        elif transform.counted:
            more = Blocks(self.node, (transform,))
        else:
            more = Mapped(self.node, transform)
        return replace(self, node=more)

    # ---- what it is

    @property
    def streamed(self) -> bool:
        """Whether rows have no positions."""
        return self.node.streamed

    @property
    def length(self) -> int:
        """Rows an epoch of what is indexed."""
        return self.node.length

    @property
    def period(self) -> int:
        """Rows of what is indexed after which it begins anew."""
        return self.node.period

    @property
    def ends(self) -> bool:
        """Whether a pass comes to an end."""
        return self.node.length < ENDLESS

    @property
    def counting(self) -> str:
        """What makes rows streamed, in words."""
        return self.node.counting

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Orders and transforms up from the source or join."""
        return self.node.stages

    @property
    def parts(self) -> Mapping[str, Part]:
        """The parts that it joins, by name."""
        return self.node.parts

    def stages_of_parts(self) -> Iterator[Stage]:
        """The stages of all parts beneath: their rows carry the same provenance."""
        for part in self.parts.values():
            yield from part.stages
            yield from part.stages_of_parts()

    @property
    def components(self) -> tuple[Component, ...]:
        """The sources, as `Origin.component` counts them."""
        return self.scope.components

    @cached_property
    def skips(self) -> bool:
        """Whether a row may be another than arithmetic says."""
        return self.on_error == "skip" or any(part.skips for part in self.parts.values())

    def written(self) -> list[str]:
        """What people wrote to make it, a line each."""
        lines = self.node.written(self.seed)
        lines += [f"  .on_error({self.on_error!r})"] if self.on_error != "raise" else []
        return lines + ([f"  .lanes({self.lanes})"] if self.lanes > 1 else [])

    def fingerprint(self) -> dict[str, str]:
        """Everything that the data depends on, by name; found once, as it may look into files."""
        return dict(self._fingerprint)

    @cached_property
    def _fingerprint(self) -> dict[str, str]:
        lanes = {"lanes": str(self.lanes)} if self.streamed else {}
        skip = {"on_error": self.on_error} if self.on_error != "raise" else {}
        return {"seed": str(self.seed), **lanes, **skip, **self.node.fingerprint()}

    # ---- rows by position

    @cached_property
    def scope(self) -> Scope:
        """The scope of a whole dataset."""
        return Scope(self)

    @cached_property
    def told(self) -> Skips:
        """The rows that failed, each told once."""
        return Skips()

    def read(self, at: At, scope: Scope | None = None) -> Block:
        """Rows of an indexed part, wherever they stand; bounds are the caller's business."""
        scope = scope or self.scope
        if self.on_error == "raise":
            return self.node.read(at, scope)
        return self._read_good(at, scope)

    def read_stacked(self, at: At, empty: Empty) -> Block:
        """As `read`, in columns made by `empty` where that spares keeping each row."""
        if self.on_error == "raise":
            return self.node.stacked(at, self.scope, empty)
        return self._read_good(at, self.scope)

    def _read_good(self, at: At, scope: Scope) -> Block:
        # rows that can be read, and for the others the next ones that can
        epochs = [
            (scope.path, scope.order, epoch, order)
            for epoch, order in zip(at.epoch.tolist(), at.order.tolist(), strict=True)
        ]
        known = self._bad.among(epochs, at)
        rest = np.flatnonzero(~known)
        good, bad = good_rows(self.node, at.take(rest), scope)
        if not bad and not known.any():
            return good[0][1] if good else self.node.read(at, scope)
        pieces = [(rest[which], block) for which, block in good]
        new = [(epochs[rest[row]], int(at.index[rest[row]])) for row in bad]
        for (epoch, index), error in zip(new, bad.values(), strict=True):
            self._bad.add(epoch, index, error)
        lost = np.sort(np.concatenate([np.flatnonzero(known), rest[list(bad)]]))
        there = at.take(lost)
        there = At(there.epoch, there.order, self._next_good(there, epochs, lost, scope, new))
        if len(new) < FEW:  # rows that fail here and there are cheap to try again
            self._bad.drop(new)
        return in_order([*pieces, (lost, self.node.read(there, scope))])

    @cached_property
    def _bad(self) -> BadRows:
        return BadRows()

    def _next_good(
        self,
        at: At,
        epochs: list[Epoch],
        rows: Int64s,
        scope: Scope,
        new: list[tuple[Epoch, int]],
    ) -> Int64s:
        # the substitute of a row that fails: the next of its epoch that can be read, or the error;
        # rows found bad on the way are new ones
        good, found = set[tuple[Epoch, int]](), list[int]()
        for i, row in enumerate(rows.tolist()):
            epoch, start = epochs[row], int(at.index[i])
            first = start // self.period * self.period
            end = first + min(self.period, self.length - first)
            index, many = self._bad.next(epoch, start, first, end), 1
            while (epoch, index) not in good:
                some = np.arange(index, min(index + many, end))
                turn = np.full(len(some), at.epoch[i]), np.full(len(some), at.order[i])
                read, bad = good_rows(self.node, At(*turn, some), scope)
                for which, error in bad.items():
                    self._bad.add(epoch, int(some[which]), error)
                    new.append((epoch, int(some[which])))
                good |= {(epoch, int(some[which])) for piece, _ in read for which in piece}
                index, many = self._bad.next(epoch, start, first, end), min(2 * many, MOST_AHEAD)
            found.append(index)
        return np.array(found, np.int64)

    def origin(self, at: At, scope: Scope | None = None) -> Origin:
        """Provenance of rows of what is indexed, by arithmetic alone."""
        return self.node.origin(at, scope or self.scope)

    def ahead(self, first: int, end: int, scope: Scope | None = None) -> None:
        """After stream rows first to end: let a source that reads ahead know what comes then.

        Only where they pass a sixteenth of what it wants to know of, and within the epoch.
        """
        horizon = self.node.horizon
        if not horizon or first >= end:
            return
        step = -(-horizon // 16)
        rows = min(horizon, -end % self.length)
        if rows and (first == 0 or first // step != end // step):
            some = end + np.arange(0, rows, -(-rows // HINTS))
            self.node.ahead(At.of_rows(some, self.length), scope or self.scope)

    def positions(self, spans: list[Span], order: int, low: int, high: int) -> Int64s:
        """Where records stand in one epoch's order of an indexed part; see `Node.positions`."""
        return self.node.positions(spans, order, low, high, self.scope)

    # ---- rows by lanes

    @cached_property
    def stream(self) -> Streamed:
        """The rows as they come in lanes; indexed ones in blocks of the usual size."""
        return cast(Streamed, self.node) if self.node.streamed else Blocks(self.node, ())

    @property
    def late(self) -> bool:
        """Whether some stages see rows only once a mix has dealt them: the loop evaluates them."""
        return self.streamed and self.stream.late

    @cached_property
    def _here(self) -> Here:
        return Here(self.scope, self.lanes)

    def reader(self, ask: Ask) -> Reader:
        """A reader of the lanes, whose blocks `ask` begins."""
        return self.stream.reader(self._here, ask)

    def read_block(self, names: Path, lane: int, number: int) -> Block:
        """Block `number` of a lane, of the component that names of mixes lead to.

        With the row-wise stages of the mixes above: they may as well come before rows are dealt,
        and so are evaluated by whoever evaluates the block.
        """
        blocks, here = self._located(names)
        block = blocks.rows(here, lane, number)
        here.scope.part.ahead(*blocks.grid(self.lanes).bounds(lane, number), here.scope)
        return block

    def block_origin(self, names: Path, lane: int, number: int) -> Origin:
        """Provenance of the records beneath a block, by arithmetic."""
        blocks, here = self._located(names)
        return blocks.records(here, lane, number)

    def _located(self, names: Path) -> tuple[Blocks, Here]:
        if names not in self._blocks:
            self._blocks[names] = self.stream.located(names, self._here)
        return self._blocks[names]

    @cached_property
    def _blocks(self) -> dict[Path, tuple[Blocks, Here]]:
        return {}

    def blocks_holding(self, spans: list[Span], places: Sequence[Lane]) -> list[tuple[int, int]]:
        """The (lane, block) pairs of streamed rows whose blocks hold records.

        Args:
            spans: the records.
            places: where the lanes stand: only blocks begun before are looked at.

        Raises:
            NoInverseError: only reading tells.
        """
        return self.stream.holding(spans, self._here, places)

    def frontiers(self, rows: int, lanes: Sequence[Lane]) -> Frontiers:
        """The first row of each mix that nothing has touched, by its key in the fingerprint.

        Args:
            rows: stream rows given so far, of an indexed part.
            lanes: where lanes stand, of a streamed one.
        """
        if self.streamed:
            return self.stream.touched_lanes(lanes, self.lanes, 0, "")
        return self.node.touched(rows, "")

    # ---- scans

    def scan_key(self) -> dict[str, str]:
        """What a scan of the part depends on, by name: no seed where nothing is random."""
        dropped = set(self._needless(""))
        return {k: v for k, v in self._fingerprint.items() if k not in dropped}

    def _needless(self, prefix: str) -> Iterator[str]:
        # on_error says which row is the substitute of a bad record, whose value nobody needs
        yield prefix + "on_error"
        if not any(stage.random for stage in self.stages):
            yield prefix + "seed"
        for name, part in self.parts.items():
            yield from part._needless(f"{prefix}{name}.")

    def scanned(self, scanned: Scanned, what: str) -> Node:
        """The node, this part's or beneath, that a scan is of.

        Raises:
            ScanError: it is of none of them, told with what differs.
        """
        was = {k: v for k, v in scanned.fingerprint().items() if k != "function"}
        nodes = list(self.node.beneath())
        keys = [Part(node, self.seed, 1, self.on_error).scan_key() for node in nodes]
        fits = [node for node, key in zip(nodes, keys, strict=True) if key == was]
        if fits:
            return fits[0]
        depth = sum(name.startswith("stages.") for name in was)
        depths = [sum(name.startswith("stages.") for name in key) for key in keys]
        near = keys[depths.index(depth) if depth in depths else 0]
        raise ScanError(
            f"{what}: {scanned!r} is of another dataset. {differences(was, near)}. Use it "
            "on the dataset that was scanned or above that, or scan this one: "
            "scan(dataset, function)."
        )
