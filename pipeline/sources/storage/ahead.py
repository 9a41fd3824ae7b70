"""What will be asked for soon and is far away: had in the background, in the order of need."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

RUNNERS = 3  # some wait for bytes while another decodes
_WAIT = 1.5  # seconds that closing waits for them


class Ahead:
    """Threads that have chunks made before they are asked for; they end when nothing is wanted.

    Args:
        have: makes chunks, a bound method; when its object is gone, so is the work.
        most: chunks of one call.
    """

    def __init__(self, have: Callable[[list[int]], Any], most: Callable[[list[int]], int]) -> None:
        self._have, self._most = weakref.WeakMethod(have), weakref.WeakMethod(most)
        self._lock = threading.Lock()
        self._wanted: list[int] = []
        self._under_way: set[int] = set()
        self._runners: set[threading.Thread] = set()

    def want(self, chunks: Sequence[int]) -> None:
        """These and no others are wanted from now on, but for those under way."""
        with self._lock:
            self._wanted = [chunk for chunk in chunks if chunk not in self._under_way]
            if self._wanted and len(self._runners) < RUNNERS:
                runner = threading.Thread(target=self._run, name="lockstep-ahead", daemon=True)
                self._runners.add(runner)
                runner.start()

    def close(self) -> None:
        """Want nothing; wait a little for what is under way."""
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
