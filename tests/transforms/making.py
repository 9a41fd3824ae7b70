"""Blocks and sites to try transforms on."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.block import Block, Columns, Origin
from pipeline.types import Component, Site

SITE = Site(seed=7, path=(), components=(Component((), Columns({"x": np.arange(9)})),), stage="S")


def block_of(values: Any, first: int = 0) -> Block:
    """A block of rows (a list, or a tree of columns) whose records count from `first`."""
    values = values if isinstance(values, list) else Columns(values)
    record = np.arange(first, first + len(values), dtype=np.int64)
    return Block(values, Origin.of_records(0, np.zeros_like(record), record))


def site_at(block: Block, start: int = 0) -> Site:
    """An indexed site: the block stands at positions from `start`."""
    at = np.arange(start, start + len(block))
    return Site(SITE.seed, SITE.path, SITE.components, SITE.stage, at)


def keys(block: Block) -> list[tuple[int, int, tuple[int, ...]]]:
    """Provenance of each row: (epoch, record, place)."""
    o = block.origin
    return [
        (int(e), int(r), tuple(p.tolist()))
        for e, r, p in zip(o.epoch, o.record, o.place, strict=True)
    ]
