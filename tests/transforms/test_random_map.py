"""RandomMap: a row's randomness hashes seed, path, name and provenance, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.block import Block, Columns, Origin
from pipeline.transforms import FlatMap, Pack, RandomMap
from pipeline.types import Component

from .making import SITE, block_of


def _draw(row, rng):
    return row, rng.random(), int(rng.integers(1 << 30))


DRAW = RandomMap(_draw, "draw")
GOLDEN = [0.35743082694426787, 0.5330221633485052]  # records 0 and 1; changes with all data


@given(cuts=st.lists(st.integers(0, 12), max_size=4), order=st.permutations(range(12)))
def test_grouping_and_neighbours_change_nothing(cuts, order):
    block = block_of(list(range(12)))
    whole = DRAW.apply(block, SITE).values
    edges = [0, *sorted(cuts), 12]
    parts = [block.slice(a, b) for a, b in pairwise(edges)]
    assert Block.concat([DRAW.apply(p, SITE) for p in parts]).rows() == whole
    mixed = DRAW.apply(block.take(np.array(order)), SITE).values
    assert sorted(mixed) == whole  # type: ignore[type-var]


def _numbers(stage=DRAW, site=SITE, epoch=0, component=0):
    zeros = np.zeros(4, np.int64)
    origin = Origin(zeros + component, zeros + epoch, np.arange(4), np.zeros((4, 0), np.int64))
    return [row[1] for row in stage.apply(Block([0] * 4, origin), site).rows()]


def test_epoch_name_seed_record_and_path_each_matter():
    two = (Component(("a",), Columns(np.arange(9))), Component(("b",), Columns(np.arange(9))))
    site = replace(SITE, components=two)
    seen = [
        _numbers(),
        _numbers(epoch=1),
        _numbers(RandomMap(_draw, "other")),
        _numbers(site=replace(SITE, seed=8)),
        _numbers(site=site),
        _numbers(site=site, component=1),
    ]
    flat = [x for row in seen for x in row]
    assert len(set(flat)) == len(flat)


def test_components_are_told_by_path_not_by_number():
    a, b = Component(("a",), Columns(np.arange(9))), Component(("b",), Columns(np.arange(9)))
    first = _numbers(site=replace(SITE, components=(a, b)), component=1)
    assert first == _numbers(site=replace(SITE, components=(b, a)), component=0)


def test_components_may_meet_in_a_block():
    a, b = Component(("a",), Columns(np.arange(9))), Component(("b",), Columns(np.arange(9)))
    site = replace(SITE, components=(a, b))
    zeros = np.zeros(4, np.int64)
    origin = Origin(np.array([0, 1, 1, 0]), zeros, np.arange(4), np.zeros((4, 0), np.int64))
    got = [row[1] for row in DRAW.apply(Block([0] * 4, origin), site).rows()]
    each = [_numbers(site=site, component=c) for c in (0, 1)]
    assert got == [each[c][i] for i, c in enumerate([0, 1, 1, 0])]


def test_rows_of_one_record_draw_apart():
    copies = FlatMap(lambda x: [x] * 3, "copies").apply(block_of([1, 2]), SITE)
    packed = Pack(2).apply(block_of([np.arange(6)]), SITE)
    for block, n in ((copies, 6), (packed, 3)):
        assert len({row[1] for row in DRAW.apply(block, SITE).rows()}) == n


def test_golden_numbers():
    assert _numbers()[:2] == GOLDEN
