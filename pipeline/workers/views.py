"""How the parent sees workers' memory: arrays over it, and a note to the owner when they die."""

from __future__ import annotations

import mmap
import os
import weakref
from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.workers.arena import Extent


class Views:
    """One worker's arena, seen from the parent.

    An extent is free again when no array over it is alive, however many views of views there are:
    they all hold the one array that lies directly on the mapping. Arrays outlive the worker.
    """

    def __init__(self) -> None:
        self._maps: dict[int, mmap.mmap] = {}
        self._alive: dict[tuple[int, int], weakref.ref[NDArray[np.uint8]]] = {}
        self._gone: deque[tuple[int, int]] = deque()

    def add(self, segment: int, fd: int, size: int) -> None:
        """Map a new segment; the descriptor is closed."""
        try:
            self._maps[segment] = mmap.mmap(fd, size)
        finally:
            os.close(fd)

    def over(self, extents: Iterable[Extent]) -> list[NDArray[np.uint8]]:
        """Writable bytes of each extent."""
        return [self._over(extent) for extent in extents]

    def _over(self, extent: Extent) -> NDArray[np.uint8]:
        array = np.frombuffer(self._maps[extent.segment], np.uint8, extent.size, extent.start)
        key = (extent.segment, extent.start)
        alive, gone = self._alive, self._gone

        # runs wherever the last view dies, in any thread and amid anything: no locks here
        def free(_: object) -> None:
            alive.pop(key, None)
            gone.append(key)

        alive[key] = weakref.ref(array, free)
        return array

    def freed(self) -> list[tuple[int, int]]:
        """Where extents start that nobody sees any more, since last asked."""
        keys: list[tuple[int, int]] = []
        while self._gone:
            keys.append(self._gone.popleft())
        return keys
