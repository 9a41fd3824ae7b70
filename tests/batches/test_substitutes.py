"""Substitutes of excluded rows: of the same epoch, and each a function of its row alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, mix
from pipeline.batches.substitutes import Substitutes
from pipeline.checkpoint.position import Exclusion
from pipeline.errors import PositionError
from pipeline.provenance.exclusions import Exclusions
from pipeline.types import At

CHAINS: dict[str, Callable[[Dataset], Dataset]] = {
    "plain": lambda ds: ds,
    "shuffled": lambda ds: ds.shuffle(),
    "repeated": lambda ds: ds.shuffle().repeat(3),
    "part": lambda ds: ds.shuffle()[5:35],
    "mixed": lambda ds: mix(
        {"a": ds, "b": ds.map(lambda x: x + 1000).shuffle()}, {"a": 1, "b": 2}, "never"
    ),
}


def _entries(ds: Dataset, bad: range, since: int = 0) -> tuple[Exclusion, ...]:
    name = "/".join(ds.top.components[0].path)
    return ((since, name, ((bad.start, bad.stop),)),)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("bad", [range(3, 4), range(10, 30), range(1, 40)])
def test_no_excluded_record_comes_and_each_row_decides_alone(chain: str, bad: range) -> None:
    ds = CHAINS[chain](Dataset(range(40), seed=7))
    part, entries = ds.top, _entries(ds, bad)
    substitutes, excluded = Substitutes(part, entries), Exclusions(part.components, entries)
    rows = np.arange(90)
    found = substitutes.rows(rows, 0)
    origin = part.origin(At.of_rows(found, part.length))
    assert not excluded.among(origin, 0).any()
    was = part.origin(At.of_rows(rows, part.length))
    kept = ~excluded.among(was, 0)
    assert (found[kept] == rows[kept]).all()
    assert (origin.epoch == was.epoch).all() or chain == "mixed"
    if len(bad) < 30:  # of the same component, while enough of it is left
        assert (origin.component == was.component).all()
    for some in (rows[::-1].copy(), rows[7:9], np.random.default_rng(0).permutation(rows)[:30]):
        assert substitutes.rows(some, 0).tolist() == found[some].tolist()


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (0.37, 0.63)])
@pytest.mark.parametrize("stop", ["first", "all"])
def test_substitutes_in_later_passes_of_a_mix(weights: tuple[float, float], stop: Any) -> None:
    # others of the epoch of a dataset may have come in earlier passes of the mix
    parts = {"a": Dataset(range(23)), "b": Dataset(range(7))}
    ds = mix(parts, dict(zip(parts, weights, strict=True)), stop)
    entries, rows = _entries(ds, range(3, 9)), np.arange(20 * len(ds))
    found = Substitutes(ds.top, entries).rows(rows, 0)
    assert (found // len(ds) == rows // len(ds)).all()
    origin = ds.top.origin(At.of_rows(found, len(ds)))
    assert not Exclusions(ds.top.components, entries).among(origin, 0).any()


def test_before_its_step_an_exclusion_changes_nothing() -> None:
    ds = Dataset(range(40), seed=7).shuffle()
    substitutes = Substitutes(ds.top, _entries(ds, range(5, 25), since=8))
    rows = np.arange(40)
    assert substitutes.rows(rows, 7).tolist() == rows.tolist()
    assert substitutes.rows(rows, 8).tolist() != rows.tolist()


def test_where_nothing_is_left_it_is_told() -> None:
    ds = Dataset(range(40), seed=7).shuffle()
    with pytest.raises(PositionError):
        Substitutes(ds.top, _entries(ds, range(40))).rows(np.arange(8), 0)
