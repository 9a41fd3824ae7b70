"""The node of zip_datasets: datasets side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.block import Block, Columns, Int64s, Origin
from pipeline.errors import ChainError
from pipeline.meter import METER
from pipeline.nodes.joined import NONE, Joined, touched_parts
from pipeline.nodes.node import Frontiers, Span
from pipeline.nodes.scope import Scope
from pipeline.types import At


@dataclass(frozen=True, eq=False)
class Zipped(Joined):
    """Row i is {name: row i of each dataset}.

    Its provenance is the first dataset's; the records of the others stand beside it.
    """

    kind = "zip"

    def __post_init__(self) -> None:
        super().__post_init__()
        lengths = {name: part.length for name, part in self.parts.items()}
        if len(set(lengths.values())) > 1:
            raise ChainError(f"zip needs equal lengths, got {lengths}. Slice the longer ones.")
        for name, part in self.parts.items():
            if part.skips:
                raise ChainError(
                    f"zip: dataset {name!r} skips rows that fail, which would set others beside "
                    'the wrong ones. Put .on_error("skip") after the zip.'
                )

    @cached_property
    def length(self) -> int:
        return next(iter(self.parts.values())).length

    def origin(self, at: At, scope: Scope) -> Origin:
        return self._beside(
            {n: part.origin(at, scope.inside(part, n)) for n, part in self.parts.items()}
        )

    def _beside(self, origins: Mapping[str, Origin]) -> Origin:
        return Origin.side_by_side([self.relabelled(n, origin) for n, origin in origins.items()])

    def read(self, at: At, scope: Scope) -> Block:
        return METER.timed(scope.source, self._read, at, scope)

    def _read(self, at: At, scope: Scope) -> Block:
        blocks = {n: part.read(at, scope.inside(part, n)) for n, part in self.parts.items()}
        origin = self._beside({name: block.origin for name, block in blocks.items()})
        values = {name: block.values for name, block in blocks.items()}
        if all(isinstance(v, Columns) for v in values.values()):
            return Block(
                Columns({n: v.tree for n, v in values.items() if isinstance(v, Columns)}), origin
            )
        rows = [block.rows() for block in blocks.values()]
        return Block(
            [dict(zip(values, row, strict=True)) for row in zip(*rows, strict=True)], origin
        )

    def _positions(
        self, spans: list[Span], order: int, low: int, high: int, scope: Scope
    ) -> Int64s:
        found = [
            part.node.positions(spans, order, low, high, scope.inside(part, name))
            for name, part in self.parts.items()
        ]
        return np.unique(np.concatenate([NONE, *found]))

    def touched(self, rows: int, head: str) -> Frontiers:
        return touched_parts(self.parts, dict.fromkeys(self.parts, rows), head)
