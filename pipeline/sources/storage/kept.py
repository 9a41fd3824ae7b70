"""What was made and may be asked for again: bounded by bytes, shared by threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Values by number, the least recently used out first; threads that ask make each one once.

    Args:
        limit: bytes; the value kept last stays, whatever it takes.
        weigh: bytes of a value.
        dropped: told of each number whose value goes.
    """

    def __init__(
        self, limit: int, weigh: Callable[[Value], int], dropped: Callable[[int], None]
    ) -> None:
        self._limit, self._weigh, self._dropped = limit, weigh, dropped
        self._lock = threading.Lock()
        self._held: OrderedDict[int, tuple[Value, int]] = OrderedDict()
        self._flights: dict[int, _Flight[Value]] = {}
        self.bytes = 0

    def __contains__(self, key: int) -> bool:
        return key in self._held

    def get(self, keys: Sequence[int], make: Callable[[list[int]], Sequence[Value]]) -> list[Value]:
        """The values of keys; `make` is asked once for all that nobody has or is making.

        Raises:
            Exception: what `make` raised; another thread that waited for it then tries itself.
        """
        found: dict[int, Value] = {}
        while len(found) < len(keys):
            flight: _Flight[Value] = _Flight()
            mine, others = self._claim(keys, found, flight)
            if mine:
                found |= self._make(mine, flight, make)
            # only now: whoever waits has nothing left that others wait for
            for other in others:
                other.done.wait()
                found |= {k: v for k, v in other.values.items() if k in keys}
        return [found[key] for key in keys]

    def _claim(
        self, keys: Sequence[int], found: dict[int, Value], flight: _Flight[Value]
    ) -> tuple[list[int], list[_Flight[Value]]]:
        mine: list[int] = []
        others: list[_Flight[Value]] = []
        with self._lock:
            for key in keys:
                if key in found:
                    continue
                if key in self._held:
                    self._held.move_to_end(key)
                    found[key] = self._held[key][0]
                elif key in self._flights:
                    others.append(self._flights[key])
                else:
                    self._flights[key] = flight
                    mine.append(key)
        return mine, others

    def _make(
        self, keys: list[int], flight: _Flight[Value], make: Callable[[list[int]], Sequence[Value]]
    ) -> dict[int, Value]:
        try:
            flight.values = dict(zip(keys, make(keys), strict=True))
            return flight.values
        finally:
            with self._lock:
                for key in keys:
                    del self._flights[key]
                self._keep(flight.values)
            flight.done.set()

    def _keep(self, values: dict[int, Value]) -> None:
        for key, value in values.items():
            self._held[key] = value, (size := self._weigh(value))
            self.bytes += size
        while self.bytes > self._limit and len(self._held) > 1:
            key, (_, size) = self._held.popitem(last=False)
            self.bytes -= size
            self._dropped(key)


class _Flight(Generic[Value]):
    """What one thread is making."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.values: dict[int, Value] = {}
