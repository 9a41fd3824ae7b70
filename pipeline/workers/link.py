"""The parent's end of one worker process: what it says, the memory it shares, what it gets back."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.workers import packets
from pipeline.workers.arena import Extent, Slice
from pipeline.workers.queue import Future

Bytes = NDArray[np.uint8]


class Worker:
    """One worker process, as the pool's thread knows it.

    Attributes:
        number: of its fork; never used again.
        link: the socket between us.
        views: its memory.
        ready: whether it has the dataset.
        at: the future that it is working on, since `since` seconds of `time.monotonic`.
        hung: whether it was told to die for taking too long.
        place: memory in which it notes where it stands, while it redoes what another died over.
    """

    def __init__(self, number: int, link: socket.socket) -> None:
        self.number, self.link = number, link
        self.views = Views()
        self.pid, self.ready, self.hung = 0, False, False
        self.at: Future | None = None
        self.since = 0.0
        self.place: mmap.mmap | None = None
        self._inbox = packets.Inbox(link)
        self._freed: list[tuple[int, int]] = []

    @property
    def connected(self) -> bool:
        return self.link.fileno() >= 0

    def messages(self) -> Iterator[tuple[Any, list[int]] | None]:
        """What has arrived, with the descriptors beside it; None at last, if the worker is gone."""
        while self.connected:
            try:
                received = self._inbox.receive(wait=False)
            except BlockingIOError:
                return
            yield received
            if received is None:
                return

    def tell_freed(self) -> None:
        """Say which extents of its memory nobody sees any more."""
        self._freed += self.views.freed()
        if self._freed and self.ready and self.connected:
            # one that is busy or has just died does not listen
            with contextlib.suppress(OSError):
                packets.send(self.link, self._freed[:1024], wait=False)
                del self._freed[:1024]

    def last_place(self) -> str:
        """Stage and record at which it was last, "" if it did not say."""
        return "" if self.place is None else self.place[:].rstrip(b"\0").decode(errors="replace")


class Views:
    """One worker's arena, seen from the parent.

    An extent is free again when no array over it is alive, however many views of views there are:
    they all hold the one array that lies directly on the mapping. Arrays outlive the worker.
    """

    def __init__(self) -> None:
        self._maps: dict[int, mmap.mmap] = {}
        self._alive: dict[tuple[int, int], weakref.ref[Bytes]] = {}
        self._gone: deque[tuple[int, int]] = deque()

    def add(self, segment: int, fd: int, size: int) -> None:
        """Map a new segment; the descriptor is closed."""
        try:
            self._maps[segment] = mmap.mmap(fd, size)
        finally:
            os.close(fd)

    def over(self, extents: Iterable[Extent], slices: Iterable[Slice]) -> list[Bytes]:
        """Writable bytes of each slice of these extents."""
        arrays = [self._over(extent) for extent in extents]
        return [arrays[s.extent][s.start : s.start + s.size] for s in slices]

    def _over(self, extent: Extent) -> Bytes:
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
