"""Grouping rows by key, so that what depends only on the key is computed once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.block import Int64s


def grouped(key: Int64s) -> Iterator[tuple[int, Int64s | slice]]:
    """Each distinct value of `key`, ascending, with the indices at which it occurs.

    >>> [(value, places.tolist()) for value, places in grouped(np.array([7, 3, 7]))]
    [(3, [1]), (7, [0, 2])]
    """
    if not len(key):
        return
    if key[0] == key[-1] and (key == key[0]).all():  # nearly always: a batch lies within one epoch
        yield int(key[0]), slice(None)
        return
    order = np.argsort(key, kind="stable")
    values, firsts = np.unique(key[order], return_index=True)
    yield from zip(values.tolist(), np.split(order, firsts[1:]), strict=True)
