"""Every transform conforms, and each rule of check_transform catches who breaks it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import pytest

from pipeline.block import Block
from pipeline.debug.conformance import check_transform
from pipeline.transforms import Filter, FlatMap, Map, MapWithIndex, Pack, RandomMap
from tests.transforms.making import block_of

LISTS = block_of([{"x": i, "t": "a" * i} for i in range(7)])
COLUMNS = block_of({"x": np.arange(7), "y": np.ones((7, 2), np.float32)})
DOCS = block_of([np.arange(n) for n in (3, 0, 9, 4, 4)])

STAGES: list[Any] = [
    Map(lambda r: {"z": r["x"] + 1}, "m"),
    Map(lambda c: {"z": c["x"] + 1}, "b", batched=True),
    MapWithIndex(lambda i, r: (i, r["x"]), "i"),
    RandomMap(lambda r, rng: (r["x"], rng.random(3)), "r"),
    Filter(lambda r: bool(r["x"] % 3), "f"),
    FlatMap(lambda r: [r["x"]] * int(r["x"]), "fm"),
]


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
@pytest.mark.parametrize("block", [LISTS, COLUMNS, LISTS.slice(0, 1), LISTS.slice(0, 0)])
def test_ours_conform(stage, block):
    check_transform(stage, block)


@pytest.mark.parametrize("how", ["split", "first_fit", "best_fit"])
def test_packs_conform(how):
    check_transform(Pack(4, how), DOCS)
    check_transform(Pack(4, how, cross=False, longer="truncate", bos=1, max_segments=2), DOCS)
    meta = block_of([{"t": d, "id": str(len(d))} for d in DOCS.rows()])
    check_transform(Pack({"t": 4}, how, meta=["id"]), meta)
    check_transform(Pack({"t": 4}, how, meta=["id"], max_segments=2), meta)


def _spoil(row):
    row["x"] = 0
    return row


def _no_place(block: Block, _: Any) -> Block:
    return block.take(np.repeat(np.arange(len(block)), 2))


@dataclass(frozen=True)
class Odd:
    """A transform that does as it is told."""

    does: Any
    counted: bool = False
    kind: str = "odd"
    name: str = "odd"
    random: bool = False
    block: int = 0

    def apply(self, block: Block, site: Any) -> Block:
        return self.does(block, site)

    def fingerprint(self) -> str:
        return "odd"


TICKS = count()


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Map(_spoil, "s"), "changed its input"),
        (Map(lambda r: next(TICKS), "t"), "two calls"),
        (Map(lambda c: {"x": c["x"] - c["x"].mean()}, "m", batched=True), "grouped"),
        (Odd(lambda b, _: Block(b.rows()[::-1], b.origin)), "grouped"),
        (Odd(lambda b, _: b.take(np.arange(len(b))[::-1])), "must keep the rows' provenance"),
        (Odd(_no_place, counted=True), "one provenance"),
        (Odd(lambda b, _: Block([0], block_of([0], 99).origin), counted=True), "no rows became"),
        (
            Odd(lambda b, _: block_of(b.rows(), first=99), counted=True),
            "not that of an input row",
        ),
        (Odd(lambda b, _: Block(b.rows()[1:], b.origin)), "differ in number"),
    ],
)
def test_who_breaks_a_rule_is_caught(stage, message):
    block = block_of([{"x": i} for i in range(5)])
    with pytest.raises(AssertionError, match=message):
        check_transform(stage, block)
