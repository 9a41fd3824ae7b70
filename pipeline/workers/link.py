"""The parent's end of one worker process: its messages, and the memory it shares."""

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
    """One worker process, as seen by the pool's thread.

    Attributes:
        number: which fork it is; never reused.
        link: the socket to it.
        views: its shared memory.
        ready: whether it has loaded the dataset.
        at: the future that it is working on, since `since` (`time.monotonic`).
        hung: whether it is being killed for taking too long.
        place: memory in which it writes its stage and record, while it redoes a work that killed
            another.
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
        """Messages that have arrived, with their descriptors; a last None if the worker is gone."""
        while self.connected:
            try:
                received = self._inbox.receive(wait=False)
            except BlockingIOError:
                return
            yield received
            if received is None:
                return

    def tell_freed(self) -> None:
        """Tell the worker which extents of its memory are no longer used here."""
        self._freed += self.views.freed()
        if self._freed and self.ready and self.connected:
            # a busy or dead worker does not read; try again later
            with contextlib.suppress(OSError):
                packets.send(self.link, self._freed[:1024], wait=False)
                del self._freed[:1024]

    def last_place(self) -> str:
        """The stage and record at which it was last, "" if unknown."""
        return "" if self.place is None else self.place[:].rstrip(b"\0").decode(errors="replace")


class Views:
    """One worker's arena, as mapped by the parent.

    An extent is free when no array over it is alive. All views of its data hold the one array that
    lies directly on the mapping, so a weak reference to that array tells. Arrays may outlive the
    worker.
    """

    def __init__(self) -> None:
        self._maps: dict[int, mmap.mmap] = {}
        self._alive: dict[tuple[int, int], weakref.ref[Bytes]] = {}
        self._gone: deque[tuple[int, int]] = deque()

    def add(self, segment: int, fd: int, size: int) -> None:
        """Map a new segment, and close its descriptor."""
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

        # runs in any thread, at any point, when the last view dies: must not take locks
        def free(_: object) -> None:
            alive.pop(key, None)
            gone.append(key)

        alive[key] = weakref.ref(array, free)
        return array

    def freed(self) -> list[tuple[int, int]]:
        """(segment, start) of the extents that became free since the last call."""
        keys: list[tuple[int, int]] = []
        while self._gone:
            keys.append(self._gone.popleft())
        return keys
