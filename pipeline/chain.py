"""How a chain is evaluated: orders resolve positions downwards, transforms carry values upwards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from pipeline.block import Block, Columns, Origin
from pipeline.errors import SourceError
from pipeline.meter import METER
from pipeline.sampling.lanes import Blocks
from pipeline.types import At, Component, Order, Root, Site, Source, Transform

Stage = Order | Transform
Path = tuple[str, ...]


class Leaf:
    """The root of a plain chain: one source."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def length(self) -> int:
        return len(self.source)

    def components(self, path: Path) -> tuple[Component, ...]:
        return (Component(path, self.source),)

    def origin(self, at: At, path: Path) -> Origin:
        return Origin.of_records(0, at.epoch, at.index)

    def read(self, at: At, path: Path) -> Block:
        values = self.source.read(at.index)
        if len(values) != len(at.index):
            raise SourceError(
                f"{type(self.source).__name__}.read gave {len(values)} records for "
                f"{len(at.index)} indices. A source must return one record an index."
            )
        values = values if isinstance(values, Columns) else list(values)
        return Block(values, self.origin(at, path))

    def fingerprint(self) -> dict[str, str]:
        own = getattr(self.source, "fingerprint", None)
        text = own() if own else f"{type(self.source).__name__} {len(self.source)}"
        return {"source": hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}


class Chain:
    """A root and the stages on it, frozen; what a Dataset describes and any process can evaluate.

    Attributes:
        root: what the chain stands on.
        stages: orders and transforms, from the root up.
        seed: what every random stage's seed is derived from.
        lanes: of a counted chain, L; else 1.
        split: the first counted stage's index; the stages before it keep one row per position.
        lengths: rows an epoch beneath each indexed stage; the last is above all of them.
        period: rows of one epoch of the indexed part.
    """

    def __init__(self, root: Root, stages: tuple[Stage, ...], seed: int, lanes: int) -> None:
        self.root, self.stages, self.seed, self.lanes = root, stages, seed, lanes
        counted = (i for i, s in enumerate(stages) if getattr(s, "counted", False))
        self.split = next(counted, len(stages))
        self.lengths, self.period = [root.length()], root.length()
        for stage in stages[: self.split]:
            order = as_order(stage)
            if order is not None:
                self.period = order.period(self.lengths[-1], self.period)
            self.lengths.append(order.length(self.lengths[-1]) if order else self.lengths[-1])
        self._sites: dict[Path, tuple[Site, ...]] = {}

    def __reduce__(self) -> Any:
        return Chain, (self.root, self.stages, self.seed, self.lanes)

    @property
    def counted(self) -> bool:
        return self.split < len(self.stages)

    @property
    def length(self) -> int:
        """Rows an epoch of the indexed part."""
        return self.lengths[-1]

    @property
    def blocks(self) -> Blocks:
        """How the indexed part is cut for the counting stages."""
        block = max((getattr(s, "block", 0) for s in self.stages), default=0)
        return Blocks(self.length, self.period, block, self.lanes)

    def read(self, at: At, path: Path = ()) -> Block:
        """Rows of the indexed part, wherever they stand; bounds are the caller's business."""
        at, transforms = self._resolve(at, path)
        block = METER.timed(_named("source", path), self.root.read, at, path)
        for transform, site in transforms:
            block = METER.timed(_named(site.stage, path), transform.apply, block, site)
        return block

    def origin(self, at: At, path: Path = ()) -> Origin:
        """Provenance of rows of the indexed part, by arithmetic alone."""
        return self.root.origin(self._resolve(at, path)[0], path)

    def read_block(self, lane: int, number: int, path: Path = ()) -> Block:
        """Block `number` of a lane of a counted chain: a pure function of the two."""
        start, stop = self.blocks.bounds(lane, number)
        block = self.read(At.of_rows(np.arange(start, stop), self.length), path)
        sites = self._site(path)
        for i in range(self.split, len(self.stages)):
            transform, site = cast(Transform, self.stages[i]), sites[i]
            block = METER.timed(_named(site.stage, path), transform.apply, block, site)
        return block

    def lane_rows(self, lane: int) -> Iterator[Block]:
        """The rows of one lane in epoch 0 (in all epochs of an endless chain), each as a block."""
        number, end = 0, self.blocks.per_pass
        while end is None or number < end:
            block = self.read_block(lane, number)
            yield from (block.slice(i, i + 1) for i in range(len(block)))
            number += 1

    def fingerprint(self) -> dict[str, str]:
        """Everything that the data depends on, by name."""
        stages = {f"stages.{i}": s.fingerprint() for i, s in enumerate(self.stages)}
        lanes = {"lanes": str(self.lanes)} if self.counted else {}
        return {"seed": str(self.seed), **lanes, **self.root.fingerprint(), **stages}

    def _resolve(self, at: At, path: Path) -> tuple[At, list[tuple[Transform, Site]]]:
        sites = self._site(path)
        transforms: list[tuple[Transform, Site]] = []
        for i in reversed(range(self.split)):
            order = as_order(self.stages[i])
            if order is not None:
                at = order.resolve(at, self.lengths[i], sites[i])
            else:
                s = sites[i]
                site = Site(s.seed, s.path, s.components, s.stage, at.index)
                transforms.append((cast(Transform, self.stages[i]), site))
        return at, transforms[::-1]

    def _site(self, path: Path) -> tuple[Site, ...]:
        if path not in self._sites:
            components = self.root.components(path)
            self._sites[path] = tuple(
                Site(self.seed, path, components, f"stage {i}: {s.kind} {s.name!r}")
                for i, s in enumerate(self.stages)
            )
        return self._sites[path]


def _named(stage: str, path: Path) -> str:
    return f"{'/'.join(path)}: {stage}" if path else stage


def as_order(stage: Stage) -> Order | None:
    """The stage if it is an order, else None."""
    return cast(Order, stage) if hasattr(stage, "resolve") else None
