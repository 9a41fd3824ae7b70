"""Keeping recently decoded groups: a sequential reader wants the rest of a group next."""

from __future__ import annotations

import numpy as np

from pipeline.sources.riegeli.chunks import Records
from pipeline.sources.storage.lru import LRU

_LIMIT = 128 << 20  # bytes of records
_MANY = 4 << 20  # decoded bytes; a larger call that needs over two groups is not a sequential read


class Recent:
    """Records of groups by (file, chunk); the least recently used are dropped first."""

    def __init__(self) -> None:
        self._groups = LRU[tuple[int, int], Records](_LIMIT, weigh=lambda r: len(r.data))

    def get(self, key: tuple[int, int]) -> Records | None:
        """The records of a group, or None if they are not kept."""
        return self._groups.peek(key)

    def keep(self, keys: list[tuple[int, int] | None], found: Records) -> None:
        """Keep the groups that have a key, unless the call is too large to be a sequential read."""
        firsts = found.first.tolist()
        if len(keys) > 2 and int((found.stops - found.starts).sum()) > _MANY:
            return
        for key, a, b in zip(keys, firsts[:-1], firsts[1:], strict=True):
            if key is not None and b > a:
                self._groups.put(key, _alone(found, a, b))

    def clear(self) -> None:
        self._groups.clear()


def _alone(found: Records, a: int, b: int) -> Records:
    start, stop = int(found.starts[a]), int(found.stops[b - 1])
    first = np.array([0, b - a])
    data = found.data[start:stop]
    return Records(data, found.starts[a:b] - start, found.stops[a:b] - start, first)
