"""The main loop of a worker process: pull work from the shared queue, send back results."""

from __future__ import annotations

import logging
import mmap
import os
import pickle
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import cloudpickle

from pipeline.block import Block
from pipeline.errors import ChainError
from pipeline.meter import BEACON, METER, Tally
from pipeline.nodes import Part
from pipeline.sources.storage.advice import Advice
from pipeline.transforms import collate_block
from pipeline.types import describe
from pipeline.workers import failure, packets
from pipeline.workers.arena import SMALL, Arena, ArenaError, Extent, Slice
from pipeline.workers.logs import Logs
from pipeline.workers.work import Work, evaluate, produce, stacked

TRIM = 64  # number of works after which unused memory is looked for
PLACE = 4096  # bytes in which a worker writes which stage and record it is at


class Ready(NamedTuple):
    """The worker has the dataset and waits for work. `failure`: the packed error, if it has not."""

    failure: bytes = b""


class NoMemory(NamedTuple):
    """There is no shared memory, so results come through the socket."""

    reason: str


class Segment(NamedTuple):
    """A new segment of the arena; its file descriptor is sent along."""

    number: int
    size: int


class Begin(NamedTuple):
    """The worker begins a work. If the worker dies, this work is redone, and may be blamed.

    If the work has killed a worker before, the file descriptor of a page is sent along, in which
    the worker writes which stage and record it is at.
    """

    number: int


class Task(NamedTuple):
    """A work to evaluate. `careful`: it has killed a worker before."""

    number: int
    work: Work
    careful: bool


class Result(NamedTuple):
    """The result of a work: a pickle with its buffers, or a packed error.

    Attributes:
        number: of the work.
        data: the pickle, or the packed error if `failed`.
        extents, slices: where the pickle's buffers lie in the arena.
        failed: whether it is an error.
        seconds: that evaluation took.
        stages: sums by stage.
        logs: what was logged meanwhile.
        started: `time.perf_counter` at the beginning.
    """

    number: int
    data: bytes
    extents: list[Extent]
    slices: list[Slice]
    failed: bool
    seconds: float
    stages: dict[str, Tally]
    logs: list[logging.LogRecord]
    started: float


def serve(load: Callable[[], tuple[Part, bool]], queue: socket.socket, link: socket.socket) -> None:
    """Evaluate works until the other end of the queue is closed.

    Args:
        load: returns the dataset, and whether to stack rows.
        queue: the socket from which all workers pull.
        link: this worker's socket to the parent.
    """
    logs = Logs()
    try:
        chain, stack = load()
    except BaseException as error:
        packets.send(link, Ready(failure.pack(error)))
        return
    Advice.alone = False
    results = _Results(link, chain, stack)
    packets.send(link, Ready())
    tasks = packets.Inbox(queue)
    while received := tasks.receive():
        task: Task = received[0]
        _begin(link, task)
        results.collect()
        started = time.perf_counter()
        sent, extents, slices, failed = _outcome(task, results)
        seconds, BEACON.tell = time.perf_counter() - started, None
        counts = seconds, METER.take(), logs.take(), started
        packets.send(link, Result(task.number, sent, extents, slices, failed, *counts))
        results.settle()


def _begin(link: socket.socket, task: Task) -> None:
    if task.careful:
        with suppress(OSError, ValueError, AttributeError):
            fd = packets.memory([bytes(PLACE)])
            page = mmap.mmap(fd, PLACE)
            packets.send(link, Begin(task.number), (fd,))
            os.close(fd)

            def tell(place: str) -> None:
                page[:] = place.encode(errors="replace")[:PLACE].ljust(PLACE, b"\0")

            BEACON.tell = tell
            return
    packets.send(link, Begin(task.number))


def _outcome(task: Task, results: _Results) -> tuple[bytes, list[Extent], list[Slice], bool]:
    try:
        return *results.of(task.work), False
    except BaseException as error:
        return failure.pack(error), [], [], True


class _Results:
    # sends blocks: arrays through shared memory if there is any, the rest pickled
    def __init__(self, link: socket.socket, chain: Part, stack: bool) -> None:
        self._link, self._chain, self._stack = link, chain, stack
        self._inbox = packets.Inbox(link)
        self._works = 0
        self._arena: Arena | None = None
        try:
            self._arena = Arena(self._share)
        except ArenaError as error:
            self._without(error)

    def _share(self, number: int, fd: int, size: int) -> None:
        packets.send(self._link, Segment(number, size), (fd,))

    def _without(self, error: ArenaError) -> None:
        self._arena = None
        packets.send(self._link, NoMemory(str(error)))

    def of(self, work: Work) -> tuple[bytes, list[Extent], list[Slice]]:
        if self._arena is None:
            return self._dumps(produce(self._chain, work, self._stack), None), [], []
        try:
            block = evaluate(self._chain, work, self._arena.empty if self._stack else None)
        except ArenaError as error:
            self._without(error)
            return self.of(work)
        try:
            return self._in_arena(block, self._arena)
        except ArenaError as error:
            self._without(error)
            return self._dumps(stacked(block) if self._stack else block, None), [], []

    def _in_arena(self, block: Block, arena: Arena) -> tuple[bytes, list[Extent], list[Slice]]:
        if self._stack:
            block = METER.timed("collate", stacked, block, arena.empty)
        buffers: list[memoryview] = []

        def place(buffer: pickle.PickleBuffer) -> bool:
            data = buffer.raw()
            if data.nbytes > SMALL:
                buffers.append(data)
            return data.nbytes <= SMALL

        def dumps(dump: Callable[..., bytes]) -> bytes:
            buffers.clear()
            return dump(block, 5, buffer_callback=place)

        data = self._dumps(block, dumps)
        return data, *arena.locate(buffers)

    def _dumps(self, block: Block, dumps: Callable[[Callable[..., bytes]], bytes] | None) -> bytes:
        dumps = dumps or (lambda dump: dump(block, 5))
        try:
            return dumps(pickle.dumps)
        except Exception:
            try:
                return dumps(cloudpickle.dumps)  # rows whose class is only defined in `__main__`
            except Exception as error:
                raise self._unsendable(block, error) from error

    def _unsendable(self, block: Block, error: Exception) -> ChainError:
        components = self._chain.components

        def named(i: int) -> str:
            return describe(components, block.origin, i)

        if self._stack:
            collate_block(block, named)  # if rows do not stack, its error is every executor's
        culprit = "its rows"
        for i, row in enumerate(block.rows()):
            try:
                cloudpickle.dumps(row)
            except Exception:
                culprit = named(i)
                break
        return ChainError(
            f"what became of {culprit} cannot be sent from a worker process: {error}. Return "
            "arrays, numbers, text or containers of them, or use Threads(n)."
        )

    def collect(self) -> None:
        """Reuse extents that the parent has released."""
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
        """Call after a result was sent: release memory that it did not need."""
        self._works += 1
        if self._arena is not None:
            self._arena.settle()
            if self._works % TRIM == 0:
                self._arena.trim()
