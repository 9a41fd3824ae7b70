"""What a chain stands on when the rows beneath are kept: the same rows, made once."""

from __future__ import annotations

import hashlib
import json
from typing import Protocol

import numpy as np

from pipeline.block import Block, Int64s, Origin, Values
from pipeline.cache.disk import Disk
from pipeline.cache.memory import Memory
from pipeline.chain import Chain, Leaf, Path, Stage, as_order
from pipeline.errors import ChainError
from pipeline.roots import Concatenation, Zip
from pipeline.tree import fresh
from pipeline.types import ENDLESS, At, Component

Piece = tuple[Int64s, Values]  # which of the positions asked for, and their rows
_FORMAT = 1


class Store(Protocol):
    """Rows by position; what it gives out is the caller's own."""

    def get(self, positions: Int64s) -> tuple[list[Piece], Int64s]:
        """The rows that are kept, and which of `positions` (rising, distinct) are not."""
        ...

    def put(self, positions: Int64s, values: Values) -> Values:
        """Keep rows; the rows as `get` will give them, whether they could be kept or not."""
        ...


class Cached:
    """An indexed chain whose rows are the same in every epoch, kept by position.

    It changes no data: fingerprint, provenance and what is drawn above are the chain's own.

    Args:
        chain: what is kept.
        folder: where; None for this process's memory.

    Raises:
        ChainError: rows of the chain differ by epoch, are counted, or never end.
    """

    kind = "cache"

    def __init__(self, chain: Chain, folder: str | None) -> None:
        _check(chain)
        self.chain, self._folder = chain, folder
        self.chains = {"": chain}
        self.stages: tuple[Stage, ...] = (*chain.before, *chain.stages)
        self._stores: dict[Path, Store] = {}

    def __reduce__(self) -> tuple[type[Cached], tuple[Chain, str | None]]:
        return Cached, (self.chain, self._folder)

    def length(self) -> int:
        return self.chain.length

    def components(self, path: Path) -> tuple[Component, ...]:
        return self.chain.root.components(path)

    def origin(self, at: At, path: Path) -> Origin:
        return self.chain.origin(at, path)

    def fingerprint(self) -> dict[str, str]:
        return self.chain.fingerprint()

    def read(self, at: At, path: Path) -> Block:
        store = self._store(path)
        positions, back = np.unique(at.index, return_inverse=True)
        pieces, missing = store.get(positions)
        if len(missing) or not pieces:
            zero = np.zeros(len(missing), np.int64)
            made = self.chain.read(At(zero, zero, positions[missing]), path)
            pieces.append((missing, store.put(positions[missing], made.values)))
        return Block(_in_order(pieces, back), self.origin(at, path))

    def _store(self, path: Path) -> Store:
        # a pinned shuffle's order depends on the path, so the rows do
        if path not in self._stores:
            n = self.chain.length
            store = Disk(self._folder, self._key(path), n) if self._folder else Memory(n)
            self._stores.setdefault(path, store)
        return self._stores[path]

    def _key(self, path: Path) -> str:
        text = json.dumps([_FORMAT, path, sorted(self.chain.fingerprint().items())])
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _in_order(pieces: list[Piece], back: Int64s) -> Values:
    blocks = [Block(values, Origin.of_records(0, places, places)) for places, values in pieces]
    places = np.concatenate([places for places, _ in pieces])
    values = Block.concat(blocks).take(np.argsort(places)[back]).values
    if isinstance(values, list) and len(back) > len(places):
        return [fresh(row) for row in values]  # a position asked for twice is two rows
    return values


def _check(chain: Chain) -> None:
    if chain.counted:
        raise ChainError(
            f"cache keeps rows by position, but {chain.counting} counts rows as they come. Move "
            "the cache before it."
        )
    if chain.length == ENDLESS or chain.period != chain.length:
        raise ChainError("cache keeps one epoch's rows: put repeat after it")
    if chain.skips:
        raise ChainError(
            "cache: a dataset beneath it skips rows that fail, and would not know which. Put "
            '.on_error("skip") after the cache.'
        )
    _check_steady(chain, pinned=False)


def _check_steady(chain: Chain, *, pinned: bool) -> None:
    """Raises ChainError where a position may hold another row in another epoch."""
    for stage in reversed(chain.stages):
        order = as_order(stage)
        if stage.random and (order is None or (getattr(stage, "reshuffle", True) and not pinned)):
            remedy = "" if order is None else ", or give it reshuffle=False"
            raise ChainError(
                f"cache would hold one epoch's rows for good, but {stage.kind} '{stage.name}' "
                f"beneath it gives others each epoch. Put it after the cache{remedy}."
            )
        pinned |= stage.kind in ("slice", "select") or not getattr(stage, "reshuffle", True)
    root = chain.root
    if not isinstance(root, Leaf | Cached | Concatenation | Zip):
        kind = getattr(root, "kind", type(root).__name__)
        raise ChainError(
            f"cache would hold one epoch's rows for good, but {kind} may give others each epoch. "
            "Cache its components."
        )
    if isinstance(root, Concatenation | Zip):
        for part in root.chains.values():
            _check_steady(part, pinned=pinned)
