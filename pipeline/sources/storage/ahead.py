"""Chunks that will be needed soon are read by background threads, in the order of need."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

RUNNERS = 3  # threads: some wait for bytes while another decodes
_WAIT = 1.5  # seconds that closing waits for them


class Ahead:
    """Background threads that read chunks before they are asked for. They end when idle.

    Args:
        have: reads chunks; a bound method. Once its object is garbage, nothing more is read.
        most: how many of the given chunks to read in one call of `have`.
    """

    def __init__(self, have: Callable[[list[int]], Any], most: Callable[[list[int]], int]) -> None:
        self._have, self._most = weakref.WeakMethod(have), weakref.WeakMethod(most)
        self._lock = threading.Lock()
        self._wanted: list[int] = []
        self._under_way: set[int] = set()
        self._runners: set[threading.Thread] = set()

    def want(self, chunks: Sequence[int]) -> None:
        """Replace the queue by these chunks; what is being read already is finished."""
        with self._lock:
            self._wanted = [chunk for chunk in chunks if chunk not in self._under_way]
            if self._wanted and len(self._runners) < RUNNERS:
                runner = threading.Thread(target=self._run, name="lockstep-ahead", daemon=True)
                self._runners.add(runner)
                runner.start()

    def close(self) -> None:
        """Empty the queue, and wait a little for what is being read."""
        self.want([])
        until = time.monotonic() + _WAIT
        for runner in list(self._runners):
            if runner is not threading.current_thread():
                runner.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        try:
            while some := self._next():
                self._make(some)
                with self._lock:
                    self._under_way.difference_update(some)
        finally:
            with self._lock:
                self._runners.discard(threading.current_thread())

    def _next(self) -> list[int]:
        with self._lock:
            most = self._most()
            some = self._wanted[: most(self._wanted)] if most is not None else []
            self._wanted = self._wanted[len(some) :]
            self._under_way.update(some)
            if not some:  # whoever wants more from now on starts another
                self._runners.discard(threading.current_thread())
            return some

    def _make(self, some: list[int]) -> None:
        have = self._have()
        try:
            if have is not None:
                have(some)
        except Exception:
            pass  # whoever asks for the chunk itself meets the error, and may try again
