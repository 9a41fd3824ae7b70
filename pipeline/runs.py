"""Which rows of a chain lie together in storage: its source's chunks as its rows see them."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.chain import Chain, Leaf, Stage, as_order
from pipeline.errors import ChainError, SourceError
from pipeline.sampling.chunks import RUN, Bounded, Even, Runs
from pipeline.sampling.slice import Slice


def runs_of(chain: Chain, run: int | None) -> Runs:
    """The chunks that a chunk shuffle above an indexed chain moves.

    Args:
        chain: over one source; its stages keep rows where they are, or slice them with step 1.
        run: aligned runs of so many rows instead of the source's own chunks.

    Raises:
        ChainError: rows of the chain do not lie as its source's do.
        SourceError: the source's chunk_bounds do not rise from 0 to its length.
    """
    root, stages = chain.root, (*chain.before, *chain.stages)
    while (held := getattr(root, "chain", None)) is not None:  # a cache keeps rows where they lie
        root = held.root
    for stage in stages:
        if as_order(stage) and not _contiguous(stage):
            raise ChainError(
                f"shuffle(chunks=) needs rows in their source's order, but {stage.kind} "
                f"'{stage.name}' moves them. Put the chunk shuffle before it; over other orders "
                "use shuffle(window=)."
            )
    if not isinstance(root, Leaf):
        kind = getattr(root, "kind", type(root).__name__)
        raise ChainError(
            f"shuffle(chunks=) needs one source's order, but {kind} joins several datasets. Chunk-"
            "shuffle each of them first; above, use shuffle(window=) or shuffle()."
        )
    bounds = None if run is not None else _bounds(root.source)
    if bounds is None:
        return Even(chain.length, run or RUN)
    for stage in stages:
        if isinstance(stage, Slice):
            bounds = np.clip(bounds, stage.start, stage.start + stage.count) - stage.start
    return Bounded(bounds)


def _contiguous(stage: Stage) -> bool:
    return isinstance(stage, Slice) and (stage.step == 1 or stage.count < 2)


def _bounds(source: Any) -> Int64s | None:
    found = getattr(source, "chunk_bounds", None)
    if found is None:
        return None
    bounds, n = np.asarray(found), len(source)
    whole = bounds.ndim == 1 and bounds.dtype.kind in "iu" and len(bounds) > 0
    if not whole or bounds[0] != 0 or bounds[-1] != n or (np.diff(bounds) < 0).any():
        raise SourceError(
            f"{type(source).__name__}.chunk_bounds is {bounds}: it must rise from 0 to {n}, the "
            "source's length."
        )
    return bounds.astype(np.int64)
