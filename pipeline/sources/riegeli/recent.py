"""Groups of records taken apart lately: sequential reads ask for the rest of a group next."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

import numpy as np

from pipeline.sources.riegeli.chunks import Records

_LIMIT = 128 << 20  # bytes of records
_MANY = 4 << 20  # from so many on, a call that needs several groups is no sequential one


class Recent:
    """Records of single groups by (file, chunk), the least recently used dropped first."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[int, int], Records] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[int, int]) -> Records | None:
        """The records of a group, if they are here."""
        if self._pid != os.getpid():  # a forked child: its copy of the lock may be held for ever
            self._begin()
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def keep(self, keys: list[tuple[int, int] | None], found: Records) -> None:
        """Keep the groups that have a key, unless there are too many to be of use."""
        firsts = found.first.tolist()
        if len(keys) > 2 and int((found.stops - found.starts).sum()) > _MANY:
            return
        for key, a, b in zip(keys, firsts[:-1], firsts[1:], strict=True):
            if key is not None and b > a:
                self._keep(key, _alone(found, a, b))

    def _keep(self, key: tuple[int, int], found: Records) -> None:
        with self._lock:
            old = self._held.pop(key, None)
            self._held[key] = found
            self._bytes += len(found.data) - (len(old.data) if old else 0)
            while self._bytes > _LIMIT and len(self._held) > 1:
                self._bytes -= len(self._held.popitem(last=False)[1].data)

    def clear(self) -> None:
        self._begin()


def _alone(found: Records, a: int, b: int) -> Records:
    start, stop = int(found.starts[a]), int(found.stops[b - 1])
    first = np.array([0, b - a])
    data = found.data[start:stop]
    return Records(data, found.starts[a:b] - start, found.stops[a:b] - start, first)
