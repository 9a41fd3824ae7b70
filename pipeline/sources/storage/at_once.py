"""Calls that each wait for a network, made at the same time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

THREADS = 32


def at_once(f: Callable[[A], B], items: Sequence[A], *, far: bool) -> list[B]:
    """`[f(item) for item in items]`, in up to 32 threads if `far`: then `f` must allow that.

    After an error or an interrupt nobody waits for calls that hang, not even the program's end.

    Args:
        f: mostly waits for a network, if `far`.
        items: what it is called with, in any order.
        far: whether threads are worth it.

    >>> at_once(len, ["a", "bc"], far=True)
    [1, 2]
    """
    if not far or len(items) < 2:
        return [f(item) for item in items]
    futures = [Future[B]() for _ in items]
    waiting = deque(zip(items, futures, strict=True))

    def run() -> None:
        while waiting:
            try:
                item, future = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                future.set_result(f(item))
            except BaseException as e:
                future.set_exception(e)

    threads = [
        threading.Thread(target=run, name="lockstep-wait", daemon=True)
        for _ in range(min(THREADS, len(items)))
    ]
    try:
        for thread in threads:
            thread.start()
        found = [future.result() for future in futures]
    finally:
        waiting.clear()
    for thread in threads:
        thread.join()
    return found
