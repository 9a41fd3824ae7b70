"""What was made lately and is kept in case it is asked for again, a bounded number at a time."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Latest(Generic[Key, Value]):
    """Values by key, the least recently used dropped first; right in threads and forks.

    A value that is dropped lives until its last user lets go of it: an open file is never closed
    under a reading thread.

    >>> squares = Latest[int, int](most=2)
    >>> [squares.get(n, lambda n: n * n) for n in (1, 2, 1, 3)]
    [1, 4, 1, 9]
    >>> squares.holds(1), squares.holds(2)
    (True, False)
    """

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self.forget()

    def forget(self) -> None:
        """Keep nothing any more."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._held: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key, make: Callable[[Key], Value]) -> Value:
        """The value of a key, made if need be: once, however many threads ask."""
        if self._pid != os.getpid():  # a forked child: its copy of the lock may be held for ever
            self.forget()
        with self._lock:
            if key not in self._held:
                self._held[key] = make(key)
                if len(self._held) > self._most:
                    self._held.popitem(last=False)
            self._held.move_to_end(key)
            return self._held[key]

    def holds(self, key: Key) -> bool:
        """Whether a key's value is here."""
        return self._pid == os.getpid() and key in self._held

    def drop(self, key: Key) -> None:
        """Forget one value, so that the next `get` makes it afresh."""
        with self._lock:
            self._held.pop(key, None)
