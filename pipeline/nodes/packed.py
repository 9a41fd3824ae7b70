"""The node of pack(lengths=…): rows packed from documents of known lengths, by position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.block import Block, Int64s, Origin
from pipeline.errors import ChainError, ScanError
from pipeline.meter import METER
from pipeline.nodes.node import Frontiers, Node, Span
from pipeline.nodes.plans import Blocks, EndToEnd, Plan
from pipeline.nodes.scope import Path, Scope
from pipeline.sampling.scanned import Scanned
from pipeline.sampling.schedule import Schedule
from pipeline.transforms import Pack
from pipeline.transforms.pack import packed_origin
from pipeline.transforms.packers import Layout
from pipeline.types import ENDLESS, At, Component, Site

if TYPE_CHECKING:
    from pipeline.nodes.part import Part

Group = tuple[Int64s, At, Layout, Int64s]
"""Rows of one epoch: which, their documents, how these are laid out, the documents' sizes."""


@dataclass(frozen=True, eq=False)
class Packed(Node):
    """Rows packed from documents whose lengths were scanned, so that each row has a position.

    Documents that may be split are laid end to end over a whole epoch, in that epoch's order, and
    only the last row is padded. The other ways pack each block of documents by itself, so the
    documents must have the same order in every epoch.

    Attributes:
        documents: the dataset that was scanned, perhaps with orders or maps above it.
        pack: how they are packed.
        lengths: scanned tokens of each document; with several fields, a column for each.
        counts: packed rows of each block, if known already; None for documents end to end.

    Raises:
        ScanError: the scan is of another dataset, or not of whole numbers.
        ChainError: the documents are streamed or endless, or would need another number of rows in
            each epoch.
    """

    documents: Part
    pack: Pack
    lengths: Scanned
    counts: Int64s | None = None
    kind = "pack(lengths=…)"

    def __post_init__(self) -> None:
        _ = self._columns, self._scanned
        if self.documents.length == ENDLESS:
            raise ChainError("pack(lengths=…) of an endless dataset: put repeat() after pack")
        object.__setattr__(self, "counts", self._plan.counts)

    @cached_property
    def _columns(self) -> list[Scanned]:
        return _columns(self.lengths, self.pack)

    @cached_property
    def _scanned(self) -> Node:
        # the node beneath whose rows were scanned
        return self.documents.scanned(self.lengths, "pack")

    @cached_property
    def _plan(self) -> Plan:
        n, pack = self.documents.length, self.pack

        def sizes(documents: Int64s) -> Int64s:
            return self._sizes(documents, 0, self.documents.scope)

        if pack.end_to_end:
            return EndToEnd(n, next(iter(pack.fields.values())), sizes)
        varying = self.documents.node.varies(values=False)
        if varying:
            raise ChainError(
                f"pack(how={pack.how!r}, lengths=…) would fill another number of rows in each "
                f'epoch, as {varying} stands beneath. Use how="split", or put the shuffle after '
                "pack and reshuffle=False on the one beneath."
            )
        return Blocks(n, pack.block, pack.plan, sizes, self.counts)

    @cached_property
    def length(self) -> int:
        return self._plan.rows

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        return {"packed": self.documents}

    def components(self, path: Path) -> tuple[Component, ...]:
        return self.documents.node.components(path)

    def written(self, seed: int) -> list[str]:
        return [*self.documents.written(), f"  {self.pack.written_with('lengths=…')}"]

    def fingerprint(self) -> dict[str, str]:
        below = {f"packed.{k}": v for k, v in self.documents.fingerprint().items()}
        return {"root": f"{self.pack.fingerprint()} by lengths", **below}

    @cached_property
    def mixture(self) -> tuple[str, Schedule] | None:
        beneath = self.documents.node.mixture
        return None if beneath is None else (f"packed.{beneath[0]}", beneath[1])

    def varies(self, pinned: bool = False, values: bool = True) -> str | None:
        return self.documents.node.varies(pinned, values)

    def orders(self, scope: Scope) -> Iterator[tuple[object, ...]]:
        return self.documents.node.orders(scope.inside(self.documents))

    def touched(self, rows: int, head: str) -> Frontiers:
        # packing depends on the lengths of all documents of an epoch: all count as drawn
        epochs = max(1, -(-rows // max(1, self.length)))
        return self.documents.node.touched(epochs * self.documents.length, f"{head}packed.")

    def sized(self, head: str) -> Frontiers:
        return self.documents.node.sized(f"{head}packed.")

    def positions(self, spans: list[Span], order: int, low: int, high: int, scope: Scope) -> Int64s:
        inside = scope.inside(self.documents)
        n = self.documents.length
        documents = self.documents.node.positions(spans, order, 0, n, inside)

        def sizes(positions: Int64s) -> Int64s:
            return self._sizes(positions, order, inside)

        return self._plan.holding(documents, (order, inside.order), sizes)

    def read(self, at: At, scope: Scope) -> Block:
        return METER.timed(scope.source, self._read, at, scope)

    def _read(self, at: At, scope: Scope) -> Block:
        groups = self._groups(at, scope.inside(self.documents))
        found = [self._packed(*group[1:], scope.inside(self.documents)) for group in groups]
        if not found:
            return Block([], self.origin(at, scope))
        return Block.concat(found).take(_back(groups))

    def origin(self, at: At, scope: Scope) -> Origin:
        inside = scope.inside(self.documents)
        groups = self._groups(at, inside)
        found = [self._origin(*group[1:], inside) for group in groups]
        return Origin.concat(found or [Origin.none()]).take(_back(groups))

    def _origin(self, documents: At, layout: Layout, sizes: Int64s, scope: Scope) -> Origin:
        below = self.documents.origin(documents, scope)
        return packed_origin(self.pack, below, layout, self._own(sizes))

    # ---- rows and documents

    def _groups(self, at: At, scope: Scope) -> list[Group]:
        found: list[Group] = []
        for epoch, order in np.unique(np.stack([at.epoch, at.order], 1), axis=0).tolist():
            here = np.flatnonzero((at.epoch == epoch) & (at.order == order))

            def sizes(documents: Int64s, order: int = order) -> Int64s:
                return self._sizes(documents, order, scope)

            pieces = self._plan.pieces(at.index[here], (order, scope.order), sizes)
            documents, which = np.unique(pieces.document, return_inverse=True)
            fields = len(self.pack.fields)
            stop = np.broadcast_to(pieces.stop, (len(which), fields))
            layout = Layout(which, pieces.start, stop, pieces.row)
            turn = np.full(len(documents), epoch), np.full(len(documents), order)
            found.append((here, At(*turn, documents), layout, sizes(documents)))
        return found

    def _packed(self, documents: At, layout: Layout, sizes: Int64s, scope: Scope) -> Block:
        block = self.documents.read(documents, scope)
        title = f"stage {len(self.documents.node.stages)}: pack {self.pack.name!r}"
        site = Site(scope.seed, scope.path, scope.components, title)

        def laid(found: Int64s) -> Layout:
            for i in np.flatnonzero((found != sizes).any(1))[:1]:
                raise ScanError(
                    f"{site.describe(block.origin, int(i))} has {found[i].tolist()} tokens, but "
                    f"{sizes[i].tolist()} by {self.lengths!r}. Scan what is packed: lengths after "
                    "every map that changes them."
                )
            return layout

        return self.pack.laid(block, site, laid)

    def _sizes(self, documents: Int64s, order: int, scope: Scope) -> Int64s:
        zero = np.zeros_like(documents)
        node = self.documents.node
        index = node.descend(At(zero, zero + order, documents), scope, self._scanned).index
        own = np.stack([column.at(index) for column in self._columns], 1).astype(np.int64)
        if own.min(initial=0) < 0:
            i = int(own.min(1).argmin())
            raise ScanError(
                f"pack wants lengths, but record {int(index[i])} has {own[i].tolist()} by "
                f"{self.lengths!r}: scan numbers from 0 on"
            )
        return self.pack.with_marks(own)

    def _own(self, sizes: Int64s) -> Int64s:
        return sizes[:, 0] - (self.pack.with_marks(np.ones_like(sizes)) - 1)[:, 0] * sizes.any(1)


def documents_of(part: Part, pack: Pack, lengths: Scanned) -> Part:
    """A part as `Packed.documents`: pinned, so that scanned lengths stay true inside of joins.

    Raises:
        ScanError: the scan is of another dataset.
    """
    _ = _columns(lengths, pack)
    # end to end, documents fill as many rows in any order, so only what was scanned is pinned;
    # in blocks, that depends on the order, so all of it is
    scanned = part.scanned(lengths, "pack") if pack.end_to_end else part.node
    return replace(part, node=part.node.pin_path(scanned), lanes=1, on_error="raise")


def _columns(lengths: Any, pack: Pack) -> list[Scanned]:
    if not isinstance(lengths, Scanned):
        raise ChainError(
            f"pack(lengths={type(lengths).__name__}): give what scan(dataset, function) returned"
        )
    names = list(pack.fields)
    columns = [lengths[name] for name in names] if lengths.is_named else [lengths] * len(names)
    if len(columns) > 1 and not lengths.is_named and not pack.end_to_end:
        raise ScanError(
            f"pack of the fields {names} wants a column of lengths for each: let the scan's "
            f"function return {{{names[0]!r}: …, …}}"
        )
    for column in columns:
        if column.dtype.kind not in "iu":
            raise ScanError(
                f"pack wants lengths, but {column!r} holds {column.dtype}: scan whole numbers"
            )
    return columns


def _back(groups: list[Group]) -> Int64s:
    rows = [group[0] for group in groups]
    return np.argsort(np.concatenate(rows)) if rows else np.zeros(0, np.int64)
