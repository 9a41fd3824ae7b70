"""A cache as a node: the same rows and provenance as without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline import Dataset, concatenate
from tests.nodes.checks import check_indexed, same

CHAINS: dict[str, Callable[[Dataset], Dataset]] = {
    "plain": lambda ds: ds,
    "mapped": lambda ds: ds.map(lambda x: {"x": np.arange(x)}),
    "part": lambda ds: ds.shuffle()[3:15],
    "pinned": lambda ds: ds.shuffle(reshuffle=False).map(str),
    "joined": lambda ds: concatenate([ds, ds[:4]]),
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("disk", [False, True])
def test_a_cache_is_a_node(chain: str, disk: bool, tmp_path: Path) -> None:
    plain = CHAINS[chain](Dataset(range(21), seed=4))
    for _ in range(2):  # filled, then found
        kept = plain.cache(tmp_path) if disk else plain.cache()
        check_indexed(kept)
        check_indexed(kept.shuffle(name="above"))
        same(kept.read(np.arange(len(plain))), plain.read(np.arange(len(plain))))
