"""The node at the bottom of a dataset: a source."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from pipeline.block import Block, Columns, Int64s, Origin, Values
from pipeline.errors import SourceError
from pipeline.meter import METER
from pipeline.nodes.faults import patiently
from pipeline.nodes.node import Node, Span
from pipeline.nodes.scope import Path, Scope
from pipeline.sources.sharing import sharing
from pipeline.sources.windows import WindowSource
from pipeline.transforms.lending import Watch
from pipeline.transforms.map import unshared
from pipeline.types import At, Component, Source, fingerprint_of


@dataclass(frozen=True, eq=False)
class Leaf(Node):
    """The records of a source, in its order."""

    source: Source

    @cached_property
    def length(self) -> int:
        return len(self.source)

    @property
    def title(self) -> str:
        return type(self.source).__name__

    @cached_property
    def unchanged(self) -> Source | None:
        return self.source

    def components(self, path: Path) -> tuple[Component, ...]:
        return (Component(path, self.source),)

    def fingerprint(self) -> dict[str, str]:
        text = fingerprint_of(self.source)
        return {"source": hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}

    def written(self, seed: int) -> list[str]:
        return [f"Dataset({type(self.source).__name__}, seed={seed})"]

    def read(self, at: At, scope: Scope) -> Block:
        return METER.timed(scope.source, self._read, at)

    def _read(self, at: At) -> Block:
        # a source may sort the indices in place, and fill the memory that it returns again
        index = at.index.copy() if self._foreign else at.index
        try:
            values = patiently(self.source.read, index)
        except Exception as error:
            records, epochs = _shown(at.index), _shown(np.unique(at.epoch))
            kind = type(self.source).__name__
            error.add_note(f"in source {kind}, records {records}, epochs {epochs}")
            raise
        values = checked(values, len(at.index), type(self.source).__name__)
        if self._foreign and isinstance(values, Columns):
            values = unshared(values)
        elif self._foreign and not self._looked_at:
            self._refuse_filled_again(values, at.index)
        return Block(values, Origin.of_records(0, at.epoch, at.index))

    @cached_property
    def _foreign(self) -> bool:
        # whether records come from a source that is not ours; windows may be views of such
        ours = type(self.source).__module__.startswith("pipeline.sources.")
        return not ours or isinstance(self.source, WindowSource)

    @cached_property
    def _looked_at(self) -> list[bool]:
        # empty until records that share an object were found to be right
        return []

    def _refuse_filled_again(self, rows: Any, index: Int64s) -> None:
        # two records may share an object, but not one that reading the first again changes
        other = sharing(rows, index.tolist())
        if not other:
            return
        first = Watch(rows[0])
        self.source.read(index[:1].copy())
        if first.changed:
            raise SourceError(
                f"{type(self.source).__name__}.read returned one object for records {index[0]} and "
                f"{index[other]}, filled again for each, so that it holds the last one. Return new "
                "ones, as buffer.copy()."
            )
        self._looked_at.append(True)

    def origin(self, at: At, scope: Scope) -> Origin:
        return Origin.of_records(0, at.epoch, at.index)

    @property
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


def checked(answer: Any, n: int, source: str) -> Values:
    """The records that a source of class `source` returned for n indices.

    Raises:
        SourceError: they are no sequence, or not as many as were asked for.

    >>> checked(range(2), 2, "Mine")
    [0, 1]
    >>> checked(None, 2, "Mine")
    Traceback (most recent call last):
    pipeline.errors.SourceError: Mine.read gave a NoneType for 2 indices. A source must return a
    list of records, or Columns, with one record an index.
    """
    if type(answer) is Columns and len(answer) == n:
        return answer
    listed = hasattr(answer, "__len__") and hasattr(answer, "__getitem__")
    listed = listed and not isinstance(answer, dict | str | bytes)
    if not listed and not isinstance(answer, Columns):
        raise SourceError(
            f"{source}.read gave a {type(answer).__name__} for {n} indices. A source must return a "
            "list of records, or Columns, with one record an index."
        )
    if len(answer) != n:
        raise SourceError(
            f"{source}.read gave {len(answer)} records for {n} indices. A source must return one "
            "record an index."
        )
    return answer if isinstance(answer, Columns) else list(answer)


def _shown(numbers: Int64s) -> str:
    return f"{numbers[:3].tolist()}{'…' if len(numbers) > 3 else ''}"
