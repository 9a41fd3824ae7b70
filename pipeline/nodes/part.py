"""A part: the nodes down to the next join, with their common seed, lanes and on_error."""

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

FEW = 16  # fewer newly found bad rows than this are not remembered
MOST_AHEAD = 256  # rows read together, at most, in search of one that does not fail
HINTS = 4096  # upcoming positions that a source is told at a time, at most


@dataclass(frozen=True, eq=False)
class Part:
    """What a Dataset holds, and a join for each of its datasets: frozen, and sent to workers.

    Attributes:
        node: the topmost node.
        seed: what every random stage's seed is derived from.
        lanes: the number of lanes of streamed rows; 1 if rows are indexed.
        on_error: "raise", or "skip" for rows that fail: a streamed row is left out, an indexed
            one is replaced by the next good row of its epoch.
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
        """The part repeated; streamed rows repeat the dataset that they are made from."""
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
        """Rows of an epoch; see `Node.length`."""
        return self.node.length

    @property
    def period(self) -> int:
        """Rows until the dataset begins anew; see `Node.period`."""
        return self.node.period

    @property
    def ends(self) -> bool:
        """Whether a pass comes to an end."""
        return self.node.length < ENDLESS

    @property
    def counting(self) -> str:
        """The stage that makes rows streamed, in words."""
        return self.node.counting

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The orders and transforms of the part, from the bottom up."""
        return self.node.stages

    @property
    def parts(self) -> Mapping[str, Part]:
        """The parts beneath, by name."""
        return self.node.parts

    def stages_of_parts(self) -> Iterator[Stage]:
        """Yield the stages of all parts beneath, whose rows carry the same provenance as here."""
        for part in self.parts.values():
            yield from part.stages
            yield from part.stages_of_parts()

    @property
    def components(self) -> tuple[Component, ...]:
        """The sources, in the order in which `Origin.component` numbers them."""
        return self.scope.components

    @cached_property
    def skips(self) -> bool:
        """Whether rows that fail are skipped, here or in a part beneath."""
        return self.on_error == "skip" or any(part.skips for part in self.parts.values())

    def written(self) -> list[str]:
        """The calls that make this part, as a user writes them, one line each."""
        lines = self.node.written(self.seed)
        lines += [f"  .on_error({self.on_error!r})"] if self.on_error != "raise" else []
        return lines + ([f"  .lanes({self.lanes})"] if self.lanes > 1 else [])

    def fingerprint(self) -> dict[str, str]:
        """Everything that the data depends on, by name; computed once, as it may read files."""
        return dict(self._fingerprint)

    @cached_property
    def _fingerprint(self) -> dict[str, str]:
        lanes = {"lanes": str(self.lanes)} if self.streamed else {}
        skip = {"on_error": self.on_error} if self.on_error != "raise" else {}
        return {"seed": str(self.seed), **lanes, **skip, **self.node.fingerprint()}

    # ---- rows by position

    @cached_property
    def scope(self) -> Scope:
        """The scope of this part as the top of a dataset."""
        return Scope(self)

    @cached_property
    def told(self) -> Skips:
        """The log of skipped rows, which tells each row once."""
        return Skips()

    def read(self, at: At, scope: Scope | None = None) -> Block:
        """The rows of an indexed part at these positions; the caller checks bounds."""
        scope = scope or self.scope
        if self.on_error == "raise":
            return self.node.read(at, scope)
        return self._read_good(at, scope)

    def read_stacked(self, at: At, empty: Empty) -> Block:
        """The same rows as `read`, stacked into arrays of `empty` where no row need be kept."""
        if self.on_error == "raise":
            return self.node.stacked(at, self.scope, empty)
        return self._read_good(at, self.scope)

    def _read_good(self, at: At, scope: Scope) -> Block:
        # a row that cannot be read is replaced by the next row of its epoch that can
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
        if len(new) < FEW:  # a few bad rows are cheap to try again
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
        # where each bad row's substitute stands: the next row of its epoch that can be read. Raises
        # if there is none. Rows found to be bad on the way are added to `new`.
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
        """The provenance of indexed rows, computed without reading them."""
        return self.node.origin(at, scope or self.scope)

    def ahead(self, first: int, end: int, scope: Scope | None = None) -> None:
        """Tell a source that reads ahead which rows follow stream rows [first, end).

        It is told once every sixteenth of its horizon, and only of rows in the same epoch.
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
        """The positions of records in one epoch of an indexed part; see `Node.positions`."""
        return self.node.positions(spans, order, low, high, self.scope)

    # ---- rows by lanes

    @cached_property
    def stream(self) -> Streamed:
        """The rows as lanes of blocks; indexed rows are cut into blocks of the default size."""
        return cast(Streamed, self.node) if self.node.streamed else Blocks(self.node, ())

    @property
    def late(self) -> bool:
        """Whether some stages work on rows that a mix has dealt: the loop's process runs these."""
        return self.streamed and self.stream.late

    @cached_property
    def _here(self) -> Here:
        return Here(self.scope, self.lanes)

    def reader(self, ask: Ask) -> Reader:
        """A reader of the lanes, which calls `ask` to begin a block."""
        return self.stream.reader(self._here, ask)

    def read_block(self, names: Path, lane: int, number: int) -> Block:
        """Block `number` of a lane, in the component that the mixes' `names` lead to.

        It has passed the row-wise stages of the mixes above. They give the same rows before and
        after dealing, so whoever evaluates the block evaluates them too.
        """
        blocks, here = self._located(names)
        block = blocks.rows(here, lane, number)
        here.scope.part.ahead(*blocks.grid(self.lanes).bounds(lane, number), here.scope)
        return block

    def block_origin(self, names: Path, lane: int, number: int) -> Origin:
        """The provenance of the records that a block is made from, without reading them."""
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
        """The (lane, number) pairs of the blocks that hold some records.

        Args:
            spans: the records.
            places: where the lanes stand; later blocks are not looked at.

        Raises:
            NoInverseError: only reading the rows would tell.
        """
        return self.stream.holding(spans, self._here, places)

    def frontiers(self, rows: int, epoch: int, lanes: Sequence[Lane]) -> Frontiers:
        """The first row of each mix that was not drawn yet, by the mix's key in the fingerprint.

        Args:
            rows: for an indexed part, the stream rows given so far.
            epoch: passes that have ended.
            lanes: for a streamed part, where its lanes stand.
        """
        if not self.streamed:
            # of an edited mix, rows may be fewer than those of the passes that it would have given
            passed = epoch * self.length if self.length < ENDLESS else 0
            return self.node.touched(max(rows, passed), "")
        found, mixture = self.stream.touched_lanes(lanes, self.lanes, 0, ""), self.node.mixture
        return {**found, mixture[0]: ENDLESS} if epoch and self.ends and mixture else found

    # ---- scans

    def scan_key(self) -> dict[str, str]:
        """What a scan depends on: the fingerprint, without the seed where nothing is random."""
        dropped = set(self._needless(""))
        return {k: v for k, v in self._fingerprint.items() if k not in dropped}

    def _needless(self, prefix: str) -> Iterator[str]:
        # on_error decides which row replaces a bad record, and a scan does not use that row
        yield prefix + "on_error"
        if not any(stage.random for stage in self.stages):
            yield prefix + "seed"
        for name, part in self.parts.items():
            yield from part._needless(f"{prefix}{name}.")

    def scanned(self, scanned: Scanned, what: str) -> Node:
        """The node of this part whose rows were scanned.

        Args:
            scanned: what the scan found.
            what: the caller, for the message.

        Raises:
            ScanError: rows of another dataset were scanned; the message says what differs.
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
