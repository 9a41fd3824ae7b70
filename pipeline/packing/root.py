"""What a dataset packed by scanned lengths stands on: rows by position, of exact number."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from pipeline.block import Block, Int64s, Origin
from pipeline.chain import Chain, Path, as_order
from pipeline.errors import ChainError, ScanError
from pipeline.packing.plans import Blocks, EndToEnd, Plan
from pipeline.sampling.scanned import Scanned
from pipeline.scannable import fickle_order, scanned_part
from pipeline.transforms import Pack
from pipeline.transforms.pack import packed_origin
from pipeline.transforms.packers import Layout
from pipeline.types import ENDLESS, At, Component, Site


class PackedRoot:
    """Rows packed from a chain's documents, whose lengths a scan knows.

    Splitting across documents lays a whole epoch end to end, in the epoch's own order, and pads
    its last row alone. The other ways pack block after block, so their documents keep one order.

    Args:
        chain: the documents; of a dataset that was scanned, and orders or maps above it.
        pack: how they are packed.
        lengths: tokens of each record scanned; several fields have a column each.
        counts: rows of each block, where they are known already.

    Raises:
        ScanError: the scan is of another dataset, or no whole numbers.
        ChainError: the chain is counted or endless, or would need another number of rows in each
            epoch.
    """

    kind = "pack(lengths=…)"

    def __init__(
        self, chain: Chain, pack: Pack, lengths: Scanned, counts: Int64s | None = None
    ) -> None:
        self._pack, self._lengths = pack, lengths
        self._chain = Chain(chain.root, chain.stages, chain.seed, 1)
        self.chains = {"packed": self._chain}
        self._columns = _columns(lengths, pack)
        self._part = scanned_part(chain, lengths, "pack")
        if chain.length == ENDLESS:
            raise ChainError("pack(lengths=…) of an endless dataset: put repeat() after pack")
        self._plan = self._planned(counts)

    def __reduce__(self) -> Any:
        counts = self._plan.counts if isinstance(self._plan, Blocks) else None
        return PackedRoot, (self._chain, self._pack, self._lengths, counts)

    def _planned(self, counts: Int64s | None) -> Plan:
        n, pack = self._chain.length, self._pack

        def sizes(documents: Int64s) -> Int64s:
            return self._sizes(documents, 0, ())

        if pack.end_to_end:
            return EndToEnd(n, next(iter(pack.fields.values())), sizes)
        fickle = fickle_order(self._chain)
        if fickle:
            raise ChainError(
                f"pack(how={pack.how!r}, lengths=…) would fill another number of rows in each "
                f'epoch, as {fickle} stands beneath. Use how="split", or put the shuffle after '
                "pack and reshuffle=False on the one beneath."
            )
        return Blocks(n, pack.block, pack.plan, sizes, counts)

    @cached_property
    def seeded(self) -> bool:
        """Whether the number of rows holds only for the shuffles of this very place."""
        stages = self._chain.stages
        mixed = any(s.random for s in stages[self._part :])
        chosen = any(s.kind in ("slice", "select") for s in stages[self._part :])
        return mixed and (chosen or isinstance(self._plan, Blocks))

    @property
    def documents(self) -> Chain:
        """What is packed."""
        return self._chain

    def rows_of(self, documents: Int64s, order: int, path: Path) -> Int64s:
        """The packed rows that hold documents of one epoch's order."""

        def sizes(positions: Int64s) -> Int64s:
            return self._sizes(positions, order, path)

        return self._plan.holding(documents, (order, path), sizes)

    def length(self) -> int:
        return self._plan.rows

    def components(self, path: Path) -> tuple[Component, ...]:
        return self._chain.root.components(path)

    def origin(self, at: At, path: Path) -> Origin:
        def origin(documents: At, layout: Layout, sizes: Int64s) -> Origin:
            below = self._chain.origin(documents, path)
            return packed_origin(self._pack, below, layout, self._own(sizes))

        groups = self._groups(at, path)
        parts = [origin(*group[1:]) for group in groups]
        return Origin.concat(parts or [Origin.none()]).take(_back(groups))

    def read(self, at: At, path: Path) -> Block:
        groups = self._groups(at, path)
        parts = [self._packed(*group[1:], path) for group in groups]
        if not parts:
            return Block([], self.origin(at, path))
        return Block.concat(parts).take(_back(groups))

    def fingerprint(self) -> dict[str, str]:
        below = {f"packed.{k}": v for k, v in self._chain.fingerprint().items()}
        return {"root": f"{self._pack.fingerprint()} by lengths", **below}

    # ---- rows and documents

    def _groups(self, at: At, path: Path) -> list[tuple[Int64s, At, Layout, Int64s]]:
        """Rows of one epoch each: which, their documents, how these are laid out, their sizes."""
        found: list[tuple[Int64s, At, Layout, Int64s]] = []
        for epoch, order in np.unique(np.stack([at.epoch, at.order], 1), axis=0).tolist():
            here = np.flatnonzero((at.epoch == epoch) & (at.order == order))

            def sizes(documents: Int64s, order: int = order) -> Int64s:
                return self._sizes(documents, order, path)

            pieces = self._plan.pieces(at.index[here], (order, path), sizes)
            documents, which = np.unique(pieces.document, return_inverse=True)
            fields = len(self._pack.fields)
            stop = np.broadcast_to(pieces.stop, (len(which), fields))
            layout = Layout(which, pieces.start, stop, pieces.row)
            turn = np.full(len(documents), epoch), np.full(len(documents), order)
            found.append((here, At(*turn, documents), layout, sizes(documents)))
        return found

    def _packed(self, documents: At, layout: Layout, sizes: Int64s, path: Path) -> Block:
        block = self._chain.read(documents, path)
        site = self._site(path)

        def laid(found: Int64s) -> Layout:
            for i in np.flatnonzero((found != sizes).any(1))[:1]:
                raise ScanError(
                    f"{site.describe(block.origin, int(i))} has {found[i].tolist()} tokens, but "
                    f"{sizes[i].tolist()} by {self._lengths!r}. Scan what is packed: lengths after "
                    "every map that changes them."
                )
            return layout

        return self._pack.laid(block, site, laid)

    def _sizes(self, documents: Int64s, order: int, path: Path) -> Int64s:
        zero = np.zeros_like(documents)
        at, sites = At(zero, zero + order, documents), self._chain.sites(path)
        for i in reversed(range(self._part, len(self._chain.stages))):
            stage = as_order(self._chain.stages[i])
            if stage is not None:
                at = stage.resolve(at, self._chain.lengths[i], sites[i])
        own = np.stack([c.at(at.index) for c in self._columns], 1).astype(np.int64)
        return self._pack.with_marks(own)

    def _own(self, sizes: Int64s) -> Int64s:
        return sizes[:, 0] - (self._pack.with_marks(np.ones_like(sizes)) - 1)[:, 0] * sizes.any(1)

    def _site(self, path: Path) -> Site:
        stage = f"stage {len(self._chain.stages)}: pack {self._pack.name!r}"
        return Site(self._chain.seed, path, self.components(path), stage)


def _columns(lengths: Scanned, pack: Pack) -> list[Scanned]:
    if not isinstance(lengths, Scanned):  # pyright: ignore[reportUnnecessaryIsInstance]
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


def _back(groups: list[tuple[Int64s, At, Layout, Int64s]]) -> Int64s:
    rows = [group[0] for group in groups]
    return np.argsort(np.concatenate(rows)) if rows else np.zeros(0, np.int64)
