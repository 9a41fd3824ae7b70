"""Groups of records taken apart lately: sequential reads ask for the rest of a group next."""

from __future__ import annotations

import numpy as np

from pipeline.sources.riegeli.chunks import Records
from pipeline.sources.storage.lru import LRU

_LIMIT = 128 << 20  # bytes of records
_MANY = 4 << 20  # from so many on, a call that needs several groups is no sequential one


class Recent:
    """Records of single groups by (file, chunk), the least recently used dropped first."""

    def __init__(self) -> None:
        self._groups = LRU[tuple[int, int], Records](_LIMIT, weigh=lambda r: len(r.data))

    def get(self, key: tuple[int, int]) -> Records | None:
        """The records of a group, if they are here."""
        return self._groups.peek(key)

    def keep(self, keys: list[tuple[int, int] | None], found: Records) -> None:
        """Keep the groups that have a key, unless there are too many to be of use."""
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
