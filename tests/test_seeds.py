"""A row's generator: as if freshly made, however its state is set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import seeds
from pipeline.seeds import RowGenerators

WORDS = st.integers(0, 2**63 - 1)


def _draws(rng: np.random.Generator) -> list[Any]:
    # an odd number of halves of a word, so that one is left over for whoever comes next
    return [
        rng.integers(0, 99, 3, np.uint32).tolist(),
        rng.random(3).tolist(),
        rng.normal(size=3).tolist(),
        rng.integers(0, 2**40, 3).tolist(),
        rng.permutation(5).tolist(),
    ]


@given(st.integers(0, 2**128 - 1), st.lists(st.tuples(WORDS, WORDS, st.integers(-1, 9))))
def test_a_row_has_the_generator_that_philox_gives(key: int, rows: list[tuple[int, ...]]):
    generators = RowGenerators(key)
    words = np.array([key & (2**64 - 1), key >> 64], np.uint64)
    for epoch, record, place in rows:
        folded = place + 1
        counter = np.array([0, folded, record, epoch], np.uint64)
        fresh = np.random.Generator(np.random.Philox(key=words, counter=counter))
        own = generators.at(epoch=epoch, record=record, place=[place])
        assert _draws(own) == _draws(fresh)


def test_the_memory_of_this_numpy_is_known():
    assert seeds._laid_out_as_known()


def test_without_known_memory_the_bits_are_the_same(monkeypatch: pytest.MonkeyPatch):
    def drawn() -> list[Any]:
        generators = RowGenerators(7)
        return [_draws(generators.at(epoch=e, record=r)) for e, r in [(0, 1), (1, 0), (0, 1)]]

    known = drawn()
    monkeypatch.setattr(seeds, "_laid_out_as_known", lambda: False)
    assert drawn() == known
