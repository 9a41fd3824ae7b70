"""Background threads that read chunks ahead of use, in the order in which they will be needed."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

RUNNERS = 3  # threads: while some wait for bytes, another decodes
_WAIT = 1.5  # seconds that `close` waits for the threads to end


class Ahead:
    """A queue of chunks that background threads read before they are asked for.

    Threads start when chunks are queued and end when the queue is empty.

    Args:
        have: a bound method that reads the chunks of the given numbers. It is held by a weak
            reference: once its object is garbage, nothing more is read.
        most: returns how many chunks, from the front of the given list, one call of `have` reads.
    """

    def __init__(self, have: Callable[[list[int]], Any], most: Callable[[list[int]], int]) -> None:
        self._have, self._most = weakref.WeakMethod(have), weakref.WeakMethod(most)
        self._lock = threading.Lock()
        self._wanted: list[int] = []
        self._under_way: set[int] = set()
        self._runners: set[threading.Thread] = set()

    def want(self, chunks: Sequence[int]) -> None:
        """Replace the queue by these chunks. Reads that have begun are finished."""
        with self._lock:
            self._wanted = [chunk for chunk in chunks if chunk not in self._under_way]
            if self._wanted and len(self._runners) < RUNNERS:
                runner = threading.Thread(target=self._run, name="lockstep-ahead", daemon=True)
                self._runners.add(runner)
                runner.start()

    def close(self) -> None:
        """Empty the queue, and wait up to 1.5 s for reads that have begun."""
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
            if not some:  # an idle thread ends here; the next `want` starts another
                self._runners.discard(threading.current_thread())
            return some

    def _make(self, some: list[int]) -> None:
        have = self._have()
        try:
            if have is not None:
                have(some)
        except Exception:
            pass  # a caller that needs the chunk reads it again, and gets the error then
