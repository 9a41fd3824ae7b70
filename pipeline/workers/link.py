"""The parent's end of one worker process: what it says, what it shares, what it gets back."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from pipeline.workers import packets
from pipeline.workers.tickets import Ticket
from pipeline.workers.views import Views


class Worker:
    """One worker process, as the pool's thread knows it.

    Attributes:
        number: of its fork; never used again.
        link: the socket between us.
        views: its memory.
        ready: whether it has the dataset.
        taken: the ticket that it is at, since `since` seconds of `time.monotonic`.
        hung: whether it was told to die for taking too long.
    """

    def __init__(self, number: int, link: socket.socket) -> None:
        self.number, self.link = number, link
        self.views = Views()
        self.pid, self.ready, self.hung = 0, False, False
        self.taken: Ticket | None = None
        self.since = 0.0
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
        if self._freed and self.ready:
            with contextlib.suppress(OSError):  # it is busy, and hears of them another time
                self.link.setblocking(False)
                packets.send(self.link, self._freed[:1024])
                del self._freed[:1024]
            self.link.setblocking(True)
