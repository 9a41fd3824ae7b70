"""Who keeps the worker processes going: hands out work, takes results, replaces the dead."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import selectors
import signal
import socket
import threading
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Block
from pipeline.chain import Chain
from pipeline.errors import WorkerError
from pipeline.types import describe
from pipeline.workers import failure, launch, packets
from pipeline.workers.child import Done, Hello, NoMemory, Segment, Taken
from pipeline.workers.nursery import Born, Exit, Fork, Kill
from pipeline.workers.tickets import Book, Outcome, Ticket, closed, raising
from pipeline.workers.views import Views
from pipeline.workers.work import records

KILLS = 3  # workers that one work may cost
BARREN = 10  # workers in a row that may die before they have begun to work
PATIENCE = 1.0  # seconds for the nursery to end its workers and itself


@dataclass(eq=False)
class _Worker:
    number: int
    link: socket.socket
    inbox: packets.Inbox
    views: Views = field(default_factory=Views)
    freed: list[tuple[int, int]] = field(default_factory=list)
    pid: int = 0
    ready: bool = False
    taken: Ticket | None = None
    since: float = 0.0
    hung: bool = False


class Pool:
    """n processes and the thread that looks after them.

    Args:
        chain: for messages; the workers have their own.
        book: where work is pulled from and results go.
        dataset: descriptor and sizes of what `dataset_bytes.write` wrote; closed at the end.
        n: processes.
        timeout: seconds after which a work counts as hung.
    """

    def __init__(
        self,
        chain: Chain,
        book: Book,
        dataset: tuple[int, list[int]],
        n: int,
        timeout: float | None,
    ) -> None:
        self._chain, self._book, self._dataset, self._n = chain, book, dataset, n
        self._timeout = timeout
        self.restarts = 0
        self._started = time.monotonic()
        self._workers: dict[int, _Worker] = {}
        self._sent: dict[int, Ticket] = {}  # in the queue, or pulled and not yet announced
        self._numbers = self._barren = 0
        self._closing = self._warned = False
        self._logged: set[str] = set()
        self._queue, self._pulled = packets.pair()
        self._queue.setblocking(False)
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="lockstep-pool", daemon=True)
        book.more = self.dispatch
        self._thread.start()

    def up(self) -> float:
        return (time.monotonic() - self._started) * self._n

    # ---- handing out

    def dispatch(self) -> None:
        """Put work into the queue that workers pull from: enough that none waits for us."""
        with self._book.lock:
            while len(self._sent) <= self._n and not self._closing:
                ticket = self._book.pull()
                if ticket is None:
                    return
                packets.send(self._queue, (ticket.number, ticket.work))
                self._sent[ticket.number] = ticket

    def _recall(self) -> None:
        # everything not known to be in a living worker's hands; what one has pulled but not yet
        # announced is done twice, and the first result counts
        inbox = packets.Inbox(self._pulled)
        with self._book.lock:
            with contextlib.suppress(BlockingIOError):
                while inbox.receive(wait=False):
                    pass
            self._book.put_back([t for t in self._sent.values() if t.state == "asked"])
            self._sent.clear()

    # ---- the thread

    def _run(self) -> None:
        try:
            self._open()
            while not self._closing:
                self._turn()
        except BaseException as error:
            told = WorkerError(f"the worker processes cannot be run: {error!r}")
            told.__cause__ = error
            self._book.break_off(told)
        finally:
            self._shut()

    def _open(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._start_nursery()

    def _start_nursery(self) -> None:
        self._control, theirs = packets.pair()
        self._control_inbox = packets.Inbox(self._control)
        fds = (theirs.fileno(), self._pulled.fileno(), self._dataset[0])
        # by this thread, which lives as long as the pool: with it the kernel ends the nursery, and
        # that the workers
        self._nursery = launch.nursery(fds, self._dataset[1])
        theirs.close()
        self._selector.register(self._control, selectors.EVENT_READ)
        for _ in range(self._n):
            self._fork()

    def _fork(self) -> None:
        link, theirs = packets.pair()
        worker = _Worker(self._numbers, link, packets.Inbox(link))
        self._numbers += 1
        self._workers[worker.number] = worker
        self._selector.register(link, selectors.EVENT_READ, worker)
        with contextlib.suppress(OSError):  # a nursery that has just died is noticed in its turn
            packets.send(self._control, Fork(worker.number), (theirs.fileno(),))
        theirs.close()

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            if key.fileobj is self._wake:
                self._wake.recv(64)
            elif key.fileobj is self._control:
                self._hear_nursery()
            elif key.data.number in self._workers:
                self._hear(key.data)
        self._end_hung()
        self.dispatch()
        self._tell_freed()

    def _hear_nursery(self) -> None:
        received = self._control_inbox.receive()
        if received is None:
            self._replace_nursery()
            return
        message, _ = received
        worker = self._workers.get(message.worker)
        if worker is not None and isinstance(message, Born):
            worker.pid = message.pid
        elif worker is not None and isinstance(message, Exit):
            self._bury(worker, message.code)

    def _hear(self, worker: _Worker, *, once: bool = True) -> None:
        # one message, or all there are
        while worker.link.fileno() >= 0:
            try:
                received = worker.inbox.receive(wait=False)
            except BlockingIOError:
                return
            if received is None:
                self._hang_up(worker)
                return
            self._take(worker, *received)
            if once:
                return

    def _hang_up(self, worker: _Worker) -> None:
        if worker.link.fileno() >= 0:
            self._selector.unregister(worker.link)
            worker.link.close()

    def _take(self, worker: _Worker, message: Any, fds: list[int]) -> None:
        if isinstance(message, Taken):
            worker.since = time.monotonic()
            with self._book.lock:
                worker.taken = self._sent.pop(message.number, None)
        elif isinstance(message, Done):
            self._finish(worker, message)
        elif isinstance(message, Segment):
            worker.views.add(message.number, fds[0], message.size)
        elif isinstance(message, Hello):
            worker.ready, self._barren = True, 0
        elif isinstance(message, NoMemory):
            self._warn(message.reason)

    def _finish(self, worker: _Worker, done: Done) -> None:
        if done.number < 0:
            self._book.break_off(failure.unpack(done.data))
            return
        buffers = worker.views.over(done.extents)
        ticket, worker.taken = worker.taken, None
        self._book.measured(done.stages)
        self._log(done.logs)
        if ticket is None:  # redone by another after all: whoever came first
            return
        outcome: Outcome = _Parcel(done.data, buffers)
        if done.failed:
            outcome = _failed(done.data)
        size = len(done.data) + sum(e.size for e in done.extents)
        self._book.finish(ticket, outcome, size, done.seconds)

    def _log(self, records: list[logging.LogRecord]) -> None:
        for record in records:
            logger = logging.getLogger(record.name)
            # several workers may have met the same row
            if logger.isEnabledFor(record.levelno) and record.msg not in self._logged:
                self._logged.add(record.msg)
                logger.handle(record)

    def _tell_freed(self) -> None:
        for worker in self._workers.values():
            worker.freed += worker.views.freed()
            if worker.freed and worker.ready:
                with contextlib.suppress(OSError):  # it is busy, and hears of them another time
                    worker.link.setblocking(False)
                    packets.send(worker.link, worker.freed[:1024])
                    del worker.freed[:1024]
                worker.link.setblocking(True)

    # ---- deaths

    def _patience(self) -> float | None:
        if self._timeout is None:
            return None
        return min(1.0, self._timeout / 4)

    def _end_hung(self) -> None:
        if self._timeout is None:
            return
        late = time.monotonic() - self._timeout
        for worker in self._workers.values():
            if worker.taken is not None and worker.since < late and not worker.hung:
                worker.hung = True
                packets.send(self._control, Kill(worker.number))

    def _bury(self, worker: _Worker, code: int) -> None:
        self._hear(worker, once=False)  # what it said before it died
        self._hang_up(worker)
        del self._workers[worker.number]
        if self._book.broken is not None:
            return
        self._recall()
        if worker.taken is not None:
            self._blame(worker, worker.taken, _manner(worker, code, self._timeout))
        elif not worker.ready:
            self._barren += 1
        if self._barren > BARREN:
            self._book.break_off(
                WorkerError(
                    f"{self._barren} worker processes in a row {_manner(worker, code, None)} "
                    "before they began to work. Try workers=0 to see the error itself."
                )
            )
            return
        self.restarts += 1
        self._fork()

    def _blame(self, worker: _Worker, ticket: Ticket, manner: str) -> None:
        ticket.kills += 1
        if ticket.kills < KILLS:
            with self._book.lock:
                if ticket.state == "asked":
                    self._book.put_back([ticket])
            return
        error = WorkerError(
            f"{KILLS} worker processes {manner} over the same work: {self._named(ticket)}. Find "
            "the record among them with workers=0, and drop or repair it, or give the function "
            "more memory or time."
        )
        self._book.finish(ticket, raising(error), 0, 0.0)

    def _named(self, ticket: Ticket) -> str:
        origin = records(self._chain, ticket.work)
        components = self._chain.root.components(())
        shown = [describe(components, origin, i) for i in range(min(8, len(origin)))]
        more = f" and {len(origin) - 8} more" if len(origin) > 8 else ""
        return "; ".join(shown) + more

    def _replace_nursery(self) -> None:
        # its workers have died with it
        self._selector.unregister(self._control)
        self._control.close()
        code = self._nursery.wait()
        dead = list(self._workers.values())
        for worker in dead:
            self._hear(worker, once=False)
            self._hang_up(worker)
        self._workers.clear()
        self._recall()
        with self._book.lock:
            held = [w.taken for w in dead if w.taken is not None and w.taken.state == "asked"]
            self._book.put_back(held)
        self._barren += 1
        if self._barren > BARREN:
            raise WorkerError(f"the process that forks workers ended with code {code}")
        self.restarts += len(dead)
        self._start_nursery()

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"no shared memory for worker processes ({reason}): batches are copied through "
                "sockets, which is slower. Allow memfd_create and a larger `ulimit -v`, `ulimit "
                "-f` or memory limit of the container, or use Threads(n).",
                RuntimeWarning,
                stacklevel=2,
            )

    # ---- the end

    def close(self) -> None:
        """End the processes; those at work have half a second to finish it."""
        self._closing = True
        self._book.break_off(closed())
        with contextlib.suppress(OSError):
            self._waker.send(b"x")
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

    def _shut(self) -> None:
        with self._book.lock:
            self._closing = True
            self._queue.close()
        self._pulled.close()
        for worker in self._workers.values():
            worker.link.close()
        if hasattr(self, "_nursery"):
            self._end_nursery()
        self._selector.close()
        for end in (self._wake, self._waker):
            end.close()
        os.close(self._dataset[0])

    def _end_nursery(self) -> None:
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        # it hangs up as it ends; Popen.wait with a timeout would sleep between looks
        self._control.settimeout(PATIENCE)
        try:
            while self._control.recv(packets.PACKET):
                pass
        except TimeoutError:
            self._nursery.kill()
        except OSError:
            pass
        self._control.close()
        self._nursery.wait()


class _Parcel:
    # a result that has arrived; unpacked by who asks for it, once
    def __init__(self, data: bytes, buffers: list[NDArray[np.uint8]]) -> None:
        self._data, self._buffers = data, buffers

    def __call__(self) -> Block:
        return pickle.loads(self._data, buffers=self._buffers)


def _failed(data: bytes) -> Outcome:
    def outcome() -> Block:
        raise failure.unpack(data)

    return outcome


def _manner(worker: _Worker, code: int, timeout: float | None) -> str:
    if worker.hung:
        return f"hung for more than {timeout} s"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"died of {signal.Signals(-code).name}"
    return f"exited with code {code}"
