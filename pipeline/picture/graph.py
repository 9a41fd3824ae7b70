"""A dataset as boxes: each source, join and stage with its rows, spec and seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

from pipeline.nodes import Part
from pipeline.nodes.node import Node
from pipeline.nodes.scope import Path, Stage
from pipeline.types import ENDLESS

Spec = Callable[[Part], Any]
_LONG = 72  # letters of a spec that are shown, at most


@dataclass(frozen=True, slots=True)
class Box:
    """One source, join or stage.

    Attributes:
        title: "map 'tokenize'", or the source's type.
        rows: how many rows it gives, in words.
        spec: a row's fields, shapes and dtypes; "" where they are not known.
        seed: what its randomness is drawn from; "" where nothing is random.
        beneath: the boxes whose rows it takes, with the names that a join gives them.
    """

    title: str
    rows: str
    spec: str
    seed: str
    beneath: tuple[tuple[str, Box], ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """What a box says, title first."""
        return tuple(text for text in (self.title, self.rows, self.spec, self.seed) if text)


def boxes_of(part: Part, spec: Spec, path: Path = ()) -> Box:
    """The topmost box of a part, which holds the boxes beneath it.

    Args:
        part: the part at the top of a dataset, or one that it joins.
        spec: finds the spec of a part's rows; if it raises, a box has none.
        path: names of joins that lead to the part.
    """
    bottom, *above = [*part.node.beneath()][::-1]
    beneath = tuple((name, boxes_of(p, spec, (*path, name))) for name, p in part.parts.items())
    bare = bottom.cut(0)
    box = Box(bottom.title, _rows(bare), _spec(part, bare, spec), "", beneath)
    stages = 0
    for node in (bottom, *above):
        for i, stage in enumerate(node.stages[stages:], 1):  # as if the node ended there
            title, so_far = f"{stage.kind} {stage.name!r}", node.cut(i)
            seed = _seed(stage, part, path)
            box = Box(title, _rows(so_far), _spec(part, so_far, spec), seed, (("", box),))
        for title in node.boxes:
            box = Box(title, _rows(node), _spec(part, node, spec), "", (("", box),))
        stages = len(node.stages)
    return box


def _rows(node: Node) -> str:
    if node.streamed:
        return "rows counted as they come"
    return "endless" if node.length >= ENDLESS else f"{node.length:,} rows"


def _seed(stage: Stage, part: Part, path: Path) -> str:
    if not stage.random:
        return ""
    own = asdict(stage).get("seed") if is_dataclass(stage) else None  # a shuffle may have one
    seed = part.seed if own is None else own
    return f"seed {seed}" + (f", path {'/'.join(path)}" if path else "")


def _spec(part: Part, node: Node, spec: Spec) -> str:
    lanes = part.lanes if node.streamed else 1
    try:
        text = str(spec(replace(part, node=node, lanes=lanes)))
    except Exception:  # a dataset that fails can be drawn, too
        return ""
    text = " ".join(text.split())
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"
