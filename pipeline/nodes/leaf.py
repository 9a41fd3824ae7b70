"""The node that each dataset begins with: one source."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from pipeline.block import Block, Int64s, Origin
from pipeline.errors import SourceError
from pipeline.meter import METER
from pipeline.nodes.faults import patiently
from pipeline.nodes.node import Node, Span
from pipeline.nodes.scope import Path, Scope
from pipeline.sources.answers import records_of
from pipeline.types import At, Component, Source


@dataclass(frozen=True, eq=False)
class Leaf(Node):
    """The records of a source, in its order."""

    source: Source

    @cached_property
    def length(self) -> int:
        return len(self.source)

    @cached_property
    def unchanged(self) -> Source | None:
        return self.source

    def components(self, path: Path) -> tuple[Component, ...]:
        return (Component(path, self.source),)

    def fingerprint(self) -> dict[str, str]:
        own = getattr(self.source, "fingerprint", None)
        text = own() if own else f"{type(self.source).__name__} {len(self.source)}"
        return {"source": hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}

    def read(self, at: At, scope: Scope) -> Block:
        return METER.timed(scope.source, self._read, at)

    def _read(self, at: At) -> Block:
        try:
            values = patiently(self.source.read, at.index)
        except Exception as error:
            epochs = sorted(set(at.epoch.tolist()))
            some = f"{at.index[:3].tolist()}{'…' if len(at.index) > 3 else ''}"
            error.add_note(
                f"in source {type(self.source).__name__}, records {some}, epochs {epochs}"
            )
            raise
        values = records_of(values, len(at.index), type(self.source).__name__)
        return Block(values, Origin.of_records(0, at.epoch, at.index))

    def origin(self, at: At, scope: Scope) -> Origin:
        return Origin.of_records(0, at.epoch, at.index)

    @cached_property
    def horizon(self) -> int:
        return getattr(self.source, "horizon", 0)

    def ahead(self, at: At, scope: Scope) -> None:
        cast(Any, self.source).ahead(at.index)

    def positions(self, spans: list[Span], order: int, low: int, high: int, scope: Scope) -> Int64s:
        own = "/".join(scope.path)
        runs = [np.arange(start, stop) for name, start, stop in spans if name == own]
        return np.concatenate([np.zeros(0, np.int64), *runs])

    def chunks(self, own: bool) -> Int64s | None:
        found = getattr(self.source, "chunk_bounds", None) if own else None
        if found is None:
            return None
        bounds, n = np.asarray(found), len(self.source)
        whole = bounds.ndim == 1 and bounds.dtype.kind in "iu" and len(bounds) > 0
        if not whole or bounds[0] != 0 or bounds[-1] != n or (np.diff(bounds) < 0).any():
            raise SourceError(
                f"{type(self.source).__name__}.chunk_bounds is {bounds}: it must rise from 0 to "
                f"{n}, the source's length."
            )
        return bounds.astype(np.int64)
