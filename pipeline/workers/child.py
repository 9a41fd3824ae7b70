"""What a worker process does: pulls work from the queue of all, and sends what came of it."""

from __future__ import annotations

import logging
import pickle
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import cloudpickle

from pipeline.block import Block
from pipeline.meter import METER, Tally
from pipeline.nodes import Part
from pipeline.workers import failure, packets
from pipeline.workers.arena import SMALL, Arena, Extent
from pipeline.workers.logs import Logs
from pipeline.workers.work import Work, evaluate, stacked

TRIM = 64  # works between two looks at memory that is not used any more


class Hello(NamedTuple):
    """The worker has the dataset and waits for work."""


class NoMemory(NamedTuple):
    """There is no shared memory: results come through the socket."""

    reason: str


class Segment(NamedTuple):
    """A new segment of the arena; its descriptor comes beside."""

    number: int
    size: int


class Taken(NamedTuple):
    """The worker begins with a work: what to redo, and to blame, if it dies."""

    number: int


class Done(NamedTuple):
    """What came of a work: a pickle with its buffers, or an error."""

    number: int
    data: bytes
    extents: tuple[Extent, ...]
    failed: bool
    seconds: float
    stages: dict[str, Tally]
    logs: list[logging.LogRecord]


def serve(load: Callable[[], tuple[Part, bool]], queue: socket.socket, link: socket.socket) -> None:
    """Work until the queue's other end is closed."""
    logs = Logs()
    try:
        chain, stack = load()
    except BaseException as error:
        packets.send(link, Done(-1, failure.pack(error), (), True, 0.0, {}, []))
        return
    results = _Results(link, stack)
    packets.send(link, Hello())
    while data := queue.recv(packets.PACKET + 1):
        number, work = pickle.loads(data[1:])
        packets.send(link, Taken(number))
        results.collect()
        started = time.perf_counter()
        sent, extents, failed = _evaluate(chain, work, results)
        seconds = time.perf_counter() - started
        done = Done(number, sent, extents, failed, seconds, METER.take(), logs.take())
        packets.send(link, done)
        results.settle()


def _evaluate(chain: Part, work: Work, results: _Results) -> tuple[bytes, tuple[Extent, ...], bool]:
    try:
        data, extents = results.pack(evaluate(chain, work))
        return data, extents, False
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        return failure.pack(error), (), True


class _Results:
    # how blocks leave: arrays in shared memory where there is some, all else pickled
    def __init__(self, link: socket.socket, stack: bool) -> None:
        self._link, self._stack = link, stack
        self._inbox = packets.Inbox(link)
        self._works = 0
        self._arena: Arena | None = None
        try:
            self._arena = Arena(self._share)
        except (OSError, AttributeError) as error:
            self._without(error)

    def _share(self, number: int, fd: int, size: int) -> None:
        packets.send(self._link, Segment(number, size), (fd,))

    def _without(self, error: Exception) -> None:
        self._arena = None
        packets.send(self._link, NoMemory(str(error)))

    def pack(self, block: Block) -> tuple[bytes, tuple[Extent, ...]]:
        if self._arena is not None:
            try:
                return self._pack(block, self._arena)
            except (OSError, ValueError) as error:
                self._without(error)
        return _dumps(stacked(block) if self._stack else block, None), ()

    def _pack(self, block: Block, arena: Arena) -> tuple[bytes, tuple[Extent, ...]]:
        if self._stack:
            block = METER.timed("collate", stacked, block, arena.empty)
        extents: list[Extent] = []

        def place(buffer: pickle.PickleBuffer) -> bool:
            data = buffer.raw()
            if data.nbytes <= SMALL:
                return True
            extents.append(arena.locate(data))
            return False

        return _dumps(block, place), tuple(extents)

    def collect(self) -> None:
        """Take notice of extents that the parent has no more use for."""
        while self._arena is not None:
            try:
                message = self._inbox.receive(wait=False)
            except BlockingIOError:
                return
            if message is None:
                return
            for key in message[0]:
                self._arena.release(*key)

    def settle(self) -> None:
        self._works += 1
        if self._arena is not None:
            self._arena.settle()
            if self._works % TRIM == 0:
                self._arena.trim()


def _dumps(block: Block, place: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    try:
        return pickle.dumps(block, 5, buffer_callback=place)
    except Exception:
        # rows of a class that only the user's __main__ knows
        return cloudpickle.dumps(block, 5, buffer_callback=place)
