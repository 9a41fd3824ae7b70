"""Stages and sources that give rows made before, at no cost: what remains is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from pipeline.block import Block, Columns, Int64s, Origin, Values
from pipeline.dataset import Dataset, of_part
from pipeline.meter import weight
from pipeline.nodes import Cached, Packed, Part
from pipeline.nodes.node import Node
from pipeline.types import Site

MOST_BYTES = 64 << 20  # of one stage's rows that are kept
MOST_ROWS = 1 << 12
Swap = Callable[[Any], Any]


class Around:
    """A stage or source in another's place: it answers as that one, but for what a subclass says.

    Args:
        inner: whose place it takes.
    """

    rowwise = False  # only `apply` is asked, not the inner stage's function, row by row

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.inner, name)


class Kept:
    """Some rows that one stage or source made.

    Attributes:
        name: as the meter calls the stage.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._blocks: list[Block] = []
        self._rows = self._bytes = 0

    def add(self, block: Block) -> None:
        """Keep a block, unless there is enough."""
        if len(block) and self._rows < MOST_ROWS and self._bytes < MOST_BYTES:
            values = block.values if isinstance(block.values, Columns) else _copied(block.values)
            self._blocks.append(Block(values, block.origin))
            self._rows += len(block)
            self._bytes += weight(block)

    @property
    def blocks(self) -> list[Block]:
        return self._blocks


class RecordedStage(Around):
    """A transform whose blocks are kept."""

    def __init__(self, inner: Any, kept: Kept) -> None:
        super().__init__(inner)
        self.kept = kept

    def apply(self, block: Block, site: Site) -> Block:
        made = self.inner.apply(block, site)
        self.kept.name = f"{'/'.join(site.path)}: {site.stage}" if site.path else site.stage
        self.kept.add(made)
        return made


class RecordedSource(Around):
    """A source whose records are kept."""

    def __init__(self, inner: Any, kept: Kept) -> None:
        super().__init__(inner)
        self.kept = kept

    def read(self, indices: Int64s) -> Values:
        values = self.inner.read(indices)
        self.kept.add(Block(values, Origin.of_records(0, np.zeros_like(indices), indices)))
        return values


class ReadyStage(Around):
    """A transform that gives rows made before, whatever it is asked for."""

    def __init__(self, inner: Any, kept: Kept) -> None:
        super().__init__(inner)
        self.made = kept.blocks if inner.counted else [Block.concat(kept.blocks)]

    def apply(self, block: Block, site: Site) -> Block:
        first = int(block.origin.record[0]) if len(block) else 0
        if self.inner.counted:
            return self.made[first % len(self.made)]
        return Block(_some(self.made[0].values, first, len(block)), block.origin)


class ReadySource(Around):
    """A source that gives records read before, whichever are asked for."""

    horizon = 0  # it reads nothing ahead

    def __init__(self, inner: Any, kept: Kept) -> None:
        super().__init__(inner)
        self.made = Block.concat(kept.blocks).values

    def read(self, indices: Int64s) -> Values:
        return _some(self.made, int(indices[0]) if len(indices) else 0, len(indices))


def _some(values: Values, first: int, n: int) -> Values:
    # n rows from somewhere among those kept; without a copy where there are so many
    have = len(values)
    if n <= have:
        start = first % (have - n + 1)
        if isinstance(values, Columns):
            return values.slice(start, start + n)
        rows = values[start : start + n]
    else:
        which = np.arange(first, first + n) % have
        if isinstance(values, Columns):
            return values.read(which)
        rows = [values[i] for i in which.tolist()]
    return _copied(rows)


def _copied(rows: list[Any]) -> list[Any]:
    # a later stage may add and drop fields
    return [cast(Any, row.copy()) if type(row) is dict else row for row in rows]


# ---- a dataset with others in it


def with_stages(dataset: Dataset, swap: Swap) -> Dataset:
    """The dataset with transforms and sources exchanged, each where `swap` gives another one.

    What lies beneath a cache stays, as it may be shared and is found again by fingerprint; and what
    lies beneath pack(lengths=…), which wants each document as long as it was scanned.
    """
    return of_part(_swapped(dataset.top, swap))


def _swapped(value: Any, swap: Swap) -> Any:
    if isinstance(value, Cached | Packed):
        return value
    if isinstance(value, Node | Part):
        fields = [f.name for f in dataclasses.fields(cast(Any, value)) if f.init]
        found = {name: _swapped(getattr(value, name), swap) for name in fields}
        same = all(found[name] is getattr(value, name) for name in fields)
        return value if same else dataclasses.replace(cast(Any, value), **found)
    if type(value) is tuple:
        parts = tuple(_swapped(part, swap) for part in cast(tuple[Any, ...], value))
        return parts if any(a is not b for a, b in zip(parts, value, strict=True)) else value
    if isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value)
        changed = {key: _swapped(part, swap) for key, part in items.items()}
        return changed if any(changed[key] is not items[key] for key in items) else value
    is_stage = hasattr(value, "apply") and hasattr(value, "counted")
    return swap(value) if is_stage or _is_source(value) else value


def _is_source(value: Any) -> bool:
    return hasattr(value, "read") and hasattr(value, "__len__")


class Recording:
    """A dataset whose stages and sources keep some of what they make.

    Attributes:
        dataset: to be evaluated in this process.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._plain = dataset
        self._kept: dict[int, Kept] = {}
        names = {id(c.source): "/".join(c.path) for c in dataset.components[::-1]}
        self._sources = {i: f"{name}: source" if name else "source" for i, name in names.items()}
        self.dataset = with_stages(dataset, self._recorded)

    def _recorded(self, value: Any) -> Any:
        kept = self._kept.setdefault(id(value), Kept(self._sources.get(id(value), "")))
        return (RecordedSource if _is_source(value) else RecordedStage)(value, kept)

    @property
    def names(self) -> list[str]:
        """Of the stages and sources that made rows."""
        return [kept.name for kept in self._kept.values() if kept.blocks]

    def without(self, name: str) -> Dataset:
        """The dataset as if one of its stages or sources cost nothing."""

        def swap(value: Any) -> Any:
            kept = self._kept.get(id(value))
            if kept is None or kept.name != name or not kept.blocks:
                return value
            return (ReadySource if _is_source(value) else ReadyStage)(value, kept)

        return with_stages(self._plain, swap)
