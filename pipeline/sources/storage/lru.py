"""A bounded LRU cache whose values are made once, even when several threads ask."""

from __future__ import annotations

import itertools
import os
import resource
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

_MOST_OPEN = 4096


class LRU(Generic[Key, Value]):
    """Values by key; the least recently used are dropped first. Safe in threads and after a fork.

    Values are made outside the lock: different keys at the same time, but each key by one thread
    only. A dropped value lives until its last user releases it, so an open file is never closed
    while another thread reads it.

    Args:
        limit: the largest sum of weights that is kept. The newest value stays, whatever it weighs.
        weigh: returns a value's weight, for example its bytes. By default each value weighs 1.
        dropped: called with the key of each value that is dropped to stay within the limit.

    Attributes:
        weight: the sum of the weights of the values kept.

    >>> squares = LRU[int, int](2)
    >>> [squares.get(n, lambda n: n * n) for n in (1, 2, 1, 3)]
    [1, 4, 1, 9]
    >>> 1 in squares, 2 in squares
    (True, False)
    >>> texts = LRU[str, bytes](10, weigh=len)
    >>> texts.put("a", b"12345678"), texts.put("b", b"1234"), texts.peek("a"), texts.weight
    (None, None, None, 4)
    """

    def __init__(
        self,
        limit: float = 256,
        *,
        weigh: Callable[[Value], int] = lambda _: 1,
        dropped: Callable[[Key], object] = lambda _: None,
    ) -> None:
        self._limit, self._weigh, self._dropped = limit, weigh, dropped
        self.clear()

    def clear(self) -> None:
        """Drop all values, without calling `dropped`."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._flights: dict[Key, _Flight[Key, Value]] = {}
        self.weight = 0

    def __contains__(self, key: Key) -> bool:
        return self._pid == os.getpid() and key in self._values

    def get(self, key: Key, make: Callable[[Key], Value]) -> Value:
        """The value of a key, made if it is missing. Raises what `get_many` raises."""
        self._check_process()
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
        return self.get_many([key], lambda keys: [make(keys[0])])[0]

    def get_many(
        self, keys: Sequence[Key], make: Callable[[list[Key]], Sequence[Value]]
    ) -> list[Value]:
        """The values of keys. `make` is called once, with all keys that no thread has or makes.

        Raises:
            Exception: what `make` raised. Threads that waited for the failed value then make it
                themselves.
        """
        self._check_process()
        found: dict[Key, Value] = {}
        wanted = set(keys)
        while len(found) < len(wanted):
            flight = _Flight[Key, Value]()
            mine, others = self._claim(keys, found, flight)
            if mine:
                found |= self._make(mine, flight, make)
            # wait only after making our own values: then no thread can be waiting for this one
            for other in others:
                other.done.wait()
                found |= {k: v for k, v in other.values.items() if k in wanted}
        return [found[key] for key in keys]

    def peek(self, key: Key) -> Value | None:
        """The value of a key, or None if it is not kept. Counts as a use."""
        self._check_process()
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Key, value: Value) -> None:
        """Keep a value; replaces an older one."""
        self._check_process()
        with self._lock:
            self._keep({key: value})

    def drop(self, key: Key) -> None:
        """Drop one value, so that the next `get` makes it again."""
        self._check_process()
        with self._lock:
            self.weight -= self._values.pop(key, (None, 0))[1]

    def _check_process(self) -> None:
        if self._pid != os.getpid():  # after a fork the lock may be held by a thread that is gone
            self.clear()

    def _claim(
        self, keys: Sequence[Key], found: dict[Key, Value], flight: _Flight[Key, Value]
    ) -> tuple[list[Key], list[_Flight[Key, Value]]]:
        mine: list[Key] = []
        others: list[_Flight[Key, Value]] = []
        with self._lock:
            for key in keys:
                if key in found:
                    continue
                if key in self._values:
                    self._values.move_to_end(key)
                    found[key] = self._values[key][0]
                elif key not in self._flights:
                    self._flights[key] = flight
                    mine.append(key)
                elif self._flights[key] is not flight:
                    others.append(self._flights[key])
        return mine, others

    def _make(
        self,
        keys: list[Key],
        flight: _Flight[Key, Value],
        make: Callable[[list[Key]], Sequence[Value]],
    ) -> dict[Key, Value]:
        flights, lock = self._flights, self._lock  # `clear` may replace the attributes
        try:
            flight.values = dict(zip(keys, make(keys), strict=True))
            return flight.values
        finally:
            with lock:
                for key in keys:
                    flights.pop(key, None)
                if lock is self._lock:
                    self._keep(flight.values)
            flight.done.set()

    def _keep(self, values: dict[Key, Value]) -> None:
        for key, value in values.items():
            self.weight -= self._values.pop(key, (None, 0))[1]
            self._values[key] = value, (weight := self._weigh(value))
            self.weight += weight
        while self.weight > self._limit and len(self._values) > 1:
            key, (_, weight) = self._values.popitem(last=False)
            self.weight -= weight
            self._dropped(key)


class _Flight(Generic[Key, Value]):
    """Values that one thread is making, and an event that is set once they are made."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.values: dict[Key, Value] = {}


class OpenFiles(Generic[Key, Value]):
    """An LRU of values that each hold an open file or mapping.

    All instances in a process share one limit: a quarter of the process's limit on open files
    (RLIMIT_NOFILE). So a mix of a hundred sources does not run out of descriptors.

    >>> handles = OpenFiles[str, int]()
    >>> handles.get("a", lambda name: len(name)), "a" in handles
    (1, True)
    """

    def __init__(self) -> None:
        self._lru = LRU[Key, Value](float("inf"))
        self._number = next(_NUMBERS)
        weakref.finalize(self, _GONE.append, self._number).atexit = False

    def __contains__(self, key: Key) -> bool:
        return key in self._lru

    def get(self, key: Key, make: Callable[[Key], Value]) -> Value:
        """The value of a key, made by one thread if it is missing."""
        value = self._lru.get(key, make)
        _OPEN.use(self, self._number, key)
        return value

    def drop(self, key: Key) -> None:
        """Drop one value, so that the next `get` makes it again."""
        self._lru.drop(key)

    def clear(self) -> None:
        """Drop all values."""
        self._lru.clear()
        _GONE.append(self._number)


class _Open:
    """The process-wide order in which the values of all `OpenFiles` were last used."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._order: OrderedDict[tuple[int, Any], weakref.ref[OpenFiles[Any, Any]]] = OrderedDict()

    def use(self, owner: OpenFiles[Any, Any], number: int, key: Any) -> None:
        if self._pid != os.getpid():
            self._begin()
        dropped: list[tuple[OpenFiles[Any, Any] | None, Any]] = []
        with self._lock:
            gone = {_GONE.popleft() for _ in range(len(_GONE))}
            if gone:
                for name in [name for name in self._order if name[0] in gone]:
                    del self._order[name]
            self._order[number, key] = weakref.ref(owner)
            self._order.move_to_end((number, key))
            while len(self._order) > most_open():
                (_, oldest), ref = self._order.popitem(last=False)
                dropped.append((ref(), oldest))
        for other, oldest in dropped:
            if other is not None:
                other.drop(oldest)


def most_open() -> int:
    """How many files this process keeps open for reuse."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_OPEN if soft < 0 else max(16, min(_MOST_OPEN, soft // 4))


_NUMBERS = itertools.count()
_GONE: deque[int] = deque()  # numbers of instances without values; appending needs no lock
_OPEN = _Open()
