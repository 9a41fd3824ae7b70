"""The node of a cache: each row is computed once, and kept by position."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from pipeline.block import Block, Columns, Int64s, Origin, Values
from pipeline.errors import ChainError
from pipeline.meter import METER
from pipeline.nodes.cache import Disk, Memory
from pipeline.nodes.node import Node, Over
from pipeline.nodes.scope import Path, Scope
from pipeline.transforms import warn_of_versions
from pipeline.tree import fresh, fresh_elements, map_leaves
from pipeline.types import ENDLESS, At

Piece = tuple[Int64s, Values]  # indices into the positions asked for, and the rows there
_FORMAT = 1


class Store(Protocol):
    """Keeps rows by position. What it returns is the caller's: changing it changes nothing kept."""

    def get(self, positions: Int64s) -> tuple[list[Piece], Int64s]:
        """Look rows up.

        Args:
            positions: int64[n], rising and distinct.

        Returns:
            The pieces that are kept, and the indices into `positions` of those that are not.
        """
        ...

    def put(self, positions: Int64s, values: Values) -> Values:
        """Keep rows, if possible, and return them as `get` does."""
        ...


@dataclass(frozen=True, eq=False)
class Cached(Over):
    """Indexed rows that are the same in every epoch (see `check_cacheable`), kept by position.

    A cache changes no data: fingerprint, provenance and randomness above are as without it.

    Attributes:
        seed: the part's seed, which the rows may depend on.
        folder: where rows are kept; None for this process's memory.
    """

    seed: int
    folder: str | None
    kind = "cache"
    boxes = ("cache",)

    @cached_property
    def _stores(self) -> dict[Path, Store]:
        return {}

    def read(self, at: At, scope: Scope) -> Block:
        return METER.timed(scope.cache, self._read, at, scope)

    def _read(self, at: At, scope: Scope) -> Block:
        store = self._store(scope)
        positions, back = np.unique(at.index, return_inverse=True)
        pieces, missing = store.get(positions)
        if len(missing) or not pieces:
            zero = np.zeros(len(missing), np.int64)
            made = self.below.read(At(zero, zero, positions[missing]), scope)
            pieces.append((missing, store.put(positions[missing], made.values)))
        return Block(_in_order(pieces, back), self.origin(at, scope))

    def _store(self, scope: Scope) -> Store:
        # rows may depend on the names that seed orders (those of a pinned shuffle do)
        path = scope.order
        if path not in self._stores:
            store = self._disk(self.folder, self._key(path)) if self.folder else None
            self._stores.setdefault(path, store or Memory(self.length))
        return self._stores[path]

    def _disk(self, folder: str, key: str) -> Disk:
        disk = Disk(folder, key, self.length)
        warn_of_versions(f"the cache {disk.folder}", disk.packages(self.packages), self.packages)
        return disk

    def _key(self, path: Path) -> str:
        of = {"seed": str(self.seed), **self.below.fingerprint()}
        # older versions gave other rows beneath a pin inside of a join: another key for them
        text = json.dumps([_FORMAT + self.pinned_orders, path, sorted(of.items())])
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def written(self, seed: int) -> list[str]:
        folder = "" if self.folder is None else repr(self.folder)
        return [*self.below.written(seed), f"  .cache({folder})"]

    @property
    def horizon(self) -> int:
        return 0  # rows that are kept need no reading ahead


def check_cacheable(node: Node, skips: bool) -> None:
    """Raise ChainError unless rows are indexed, finite, not skipped and alike in each epoch."""
    if node.streamed:
        raise ChainError(
            f"cache keeps rows by position, but {node.counting} counts rows as they come. Move "
            "the cache before it."
        )
    if node.length == ENDLESS or node.period != node.length:
        raise ChainError("cache keeps one epoch's rows: put repeat after it")
    if skips:
        raise ChainError(
            "cache: a dataset beneath it skips rows that fail, and would not know which. Put "
            '.on_error("skip") after the cache.'
        )
    varying = node.varies()
    if varying:
        remedy = "" if node.varies(values=False) is None else ", or hold one order: reshuffle=False"
        raise ChainError(
            f"cache would hold one epoch's rows for good, but {varying} beneath it gives others "
            f"each epoch. Put it after the cache{remedy}."
        )


def _in_order(pieces: list[Piece], back: Int64s) -> Values:
    blocks = [Block(values, Origin.of_records(0, places, places)) for places, values in pieces]
    places = np.concatenate([places for places, _ in pieces])
    values = Block.concat(blocks).take(np.argsort(places)[back]).values
    if len(back) == len(places):
        return values
    # a position asked for twice gives two objects
    if isinstance(values, list):
        return [fresh(row) for row in values]
    return Columns.of(map_leaves(fresh_elements, values.tree), len(values))
