"""Which files are open in this process: opened when first read, a bounded number at a time."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Handle = TypeVar("Handle")


class Handles(Generic[Handle]):
    """Open files by number, the least recently used dropped first; right in threads and forks.

    A handle that is dropped closes when its last user lets go of it, never under a reading thread.
    """

    def __init__(self, opener: Callable[[int], Handle], *, most: int = 256) -> None:
        self._open = opener
        self._most = most
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._held: OrderedDict[int, Handle] = OrderedDict()

    def get(self, file: int) -> Handle:
        """The open handle of a file."""
        if self._pid != os.getpid():  # a forked child: its copy of the lock may be held for ever
            self._begin()
        with self._lock:
            if file not in self._held:
                self._held[file] = self._open(file)
                if len(self._held) > self._most:
                    self._held.popitem(last=False)
            self._held.move_to_end(file)
            return self._held[file]

    def holds(self, file: int) -> bool:
        """Whether a file is open."""
        return self._pid == os.getpid() and file in self._held

    def drop(self, file: int) -> None:
        """Forget a handle, so that the next `get` opens the file afresh."""
        with self._lock:
            self._held.pop(file, None)

    def close(self) -> None:
        """Forget all handles; `get` opens them again."""
        self._begin()
