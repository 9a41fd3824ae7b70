"""Batches that span blocks lie in memory of earlier ones, and never in that of one still held."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline import Dataset, Loader


def _loader() -> Loader[Any]:
    docs = [np.full(100 + i % 60, i, np.int64) for i in range(3000)]
    return Loader(Dataset(docs, seed=1).shuffle().repeat().pack(512, block=32), 24)


def test_what_is_held_stays_as_it_was() -> None:
    held, loader = [], _loader()
    for _ in range(30):
        batch = next(loader)
        held.append((batch["tokens"][3:], batch["tokens"].copy()))  # a view holds it, too
    for view, copied in held:
        assert view.tolist() == copied[3:].tolist()
    again = _loader()
    for _, copied in held:
        batch = next(again)
        assert batch["tokens"].tolist() == copied.tolist()
        batch["tokens"][:] = -1  # whoever writes into a batch changes no other


def test_batches_that_are_kept_lie_apart() -> None:
    loader = _loader()
    for _ in range(10):
        next(loader)
    kept = [next(loader)["tokens"] for _ in range(10)]
    assert len({a.ctypes.data for a in kept}) == 10
