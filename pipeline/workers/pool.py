"""The pool of worker processes: hands out work, takes results, and replaces dead workers."""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import selectors
import signal
import socket
import threading
import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Block
from pipeline.errors import WorkerError
from pipeline.nodes import Part
from pipeline.workers import failure, forkserver, packets
from pipeline.workers.child import PLACE, Begin, NoMemory, Ready, Result, Segment, Task
from pipeline.workers.executor import Crew
from pipeline.workers.forkserver import Birth, Exit, Fork, Kill
from pipeline.workers.link import Worker
from pipeline.workers.logs import Relay
from pipeline.workers.queue import Future, Outcome, Queue
from pipeline.workers.sending import Parcel
from pipeline.workers.stats import Worked

PATIENCE = 1.0  # seconds in which the forkserver may end its workers and itself
BARREN = 10  # number of workers in a row that may die before they begin a work


class Pool(Crew):
    """n worker processes, and the thread that looks after them.

    Args:
        chain: for messages; the workers have their own copy.
        queue: where works are pulled from and results are put.
        dataset: what workers load; its descriptor is closed at the end.
        n: how many processes.
        timeout: seconds after which a work counts as hung; None for never.
    """

    def __init__(
        self, chain: Part, queue: Queue, dataset: Parcel, n: int, timeout: float | None
    ) -> None:
        super().__init__(chain, queue, n)
        self._dataset, self._timeout = dataset, timeout
        self._workers: dict[int, Worker] = {}
        self._sent: dict[int, Future] = {}  # in the socket, or pulled and not yet announced
        self._numbers = self._barren = 0
        self._closing = self._warned = self._ready = False
        self._relay = Relay()
        self._tasks, self._pulled = packets.pair()
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="lockstep-pool", daemon=True)
        queue.more, queue.recall = self.dispatch, self._wake_up
        self._thread.start()

    # ---- handing out

    def dispatch(self) -> None:
        """Put works into the socket that workers pull from, so many that no worker has to wait.

        Until a worker is ready, all works stay in the queue, where the loop's own thread finds
        them.
        """
        with self._queue.lock:
            while self._ready and len(self._sent) <= self._n and not self._closing:
                future = self._queue.pull()
                if future is None:
                    return
                try:
                    task = Task(future.number, future.work, future.total > 0)
                    packets.send_whole(self._tasks, task)
                except BlockingIOError:  # the socket is full: tried again once a worker has pulled
                    self._queue.put_back([future])
                    return
                self._sent[future.number] = future

    def _recall(self) -> None:
        # put back every work that is not known to be with a living worker. One that a worker has
        # pulled but not yet announced is evaluated twice, and the first result counts.
        inbox = packets.Inbox(self._pulled)
        with self._queue.lock:
            with contextlib.suppress(BlockingIOError):
                while inbox.receive(wait=False):
                    pass
            self._queue.put_back([f for f in self._sent.values() if f.state == "asked"])
            self._sent.clear()

    def _give_back(self) -> None:
        # if a work that the loop waits for and could evaluate itself is still in the socket, take
        # back all works from there: a single one cannot be taken
        with self._queue.lock:
            wanted = [f for f in self._sent.values() if f.wanted and not f.begun and not f.claimed]
            if not any(future.state == "asked" for future in wanted):
                return
            inbox, found = packets.Inbox(self._pulled), list[Future]()
            with contextlib.suppress(BlockingIOError):
                while received := inbox.receive(wait=False):
                    if (future := self._sent.pop(received[0].number, None)) is not None:
                        future.claimed = future.wanted
                        found.append(future)
            self._queue.put_back([f for f in found if f.state == "asked" and not f.claimed])

    # ---- the thread

    def _run(self) -> None:
        try:
            self._open()
            while not self._closing:
                self._turn()
        except BaseException as error:
            told = WorkerError(f"the worker processes cannot be run: {error!r}")
            told.__cause__ = error
            self._queue.break_off(told)
        finally:
            self._shut()

    def _open(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._start_forkserver()

    def _start_forkserver(self) -> None:
        self._control, theirs = packets.pair()
        self._control_inbox = packets.Inbox(self._control)
        fds = (theirs.fileno(), self._pulled.fileno())
        # started by this thread, which lives as long as the pool: when it ends, the kernel kills
        # the forkserver, and with it the workers
        self._forkserver = forkserver.start(fds, self._dataset)
        theirs.close()
        self._selector.register(self._control, selectors.EVENT_READ)
        for _ in range(self._n):
            self._fork()

    def _fork(self) -> None:
        link, theirs = packets.pair()
        worker = Worker(self._numbers, link)
        self._numbers += 1
        self._workers[worker.number] = worker
        self._selector.register(link, selectors.EVENT_READ, worker)
        with contextlib.suppress(OSError):  # a forkserver that has just died is noticed later
            packets.send(self._control, Fork(worker.number), (theirs.fileno(),))
        theirs.close()

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            if key.fileobj is self._wake:
                self._wake.recv(64)
            elif key.fileobj is self._control:
                self._hear_forkserver()
            elif key.data.number in self._workers:
                self._hear(key.data, once=True)
        self._end_hung()
        self._give_back()
        self.dispatch()
        for worker in self._workers.values():
            worker.tell_freed()

    def _hear_forkserver(self) -> None:
        received = self._control_inbox.receive()
        if received is None:
            self._replace_forkserver()
            return
        message, _ = received
        worker = self._workers.get(message.worker)
        if worker is not None and isinstance(message, Birth):
            worker.pid = message.pid
        elif worker is not None and isinstance(message, Exit):
            self._bury(worker, message.code)

    def _hear(self, worker: Worker, *, once: bool = False) -> None:
        for received in worker.messages():
            if received is None:
                self._hang_up(worker)
            else:
                self._take(worker, *received)
            if once:  # a read that would block costs as much as one that does not
                return

    def _hang_up(self, worker: Worker) -> None:
        if worker.connected:
            self._selector.unregister(worker.link)
            worker.link.close()

    def _take(self, worker: Worker, message: Any, fds: list[int]) -> None:
        if isinstance(message, Begin):
            worker.since = time.monotonic()
            with self._queue.lock:
                worker.at = self._sent.pop(message.number, None)
                if worker.at is not None:
                    worker.at.begun = True
            worker.place = None
            for fd in fds:
                worker.place = mmap.mmap(fd, PLACE)
                os.close(fd)
        elif isinstance(message, Result):
            self._finish(worker, message)
        elif isinstance(message, Segment):
            worker.views.add(message.number, fds[0], message.size)
        elif isinstance(message, Ready):
            self._ready = worker.ready = True
            self._barren = 0
            if message.failure:
                self._queue.break_off(failure.unpack(message.failure))
        elif isinstance(message, NoMemory):
            self._warn(message.reason)

    def _finish(self, worker: Worker, result: Result) -> None:
        buffers = worker.views.over(result.extents, result.slices)
        future, worker.at = worker.at, None
        spent = result.started, result.seconds, result.stages
        self._queue.measured(Worked(result.number, worker.number, *spent))
        self._relay.say(result.logs)
        if future is None:  # another worker redid it and was faster
            return
        outcome: Outcome = _Block(result.data, buffers)
        if result.failed:
            outcome = failure.raised(result.data)
        size = len(result.data) + sum(e.size for e in result.extents)
        self._queue.finish(future, outcome, size, result.seconds)

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
            if worker.at is not None and worker.since < late and not worker.hung:
                worker.hung = True
                with contextlib.suppress(OSError):  # the forkserver died, and its workers with it
                    packets.send(self._control, Kill(worker.number))

    def _bury(self, worker: Worker, code: int) -> None:
        self._hear(worker)  # what it sent before it died
        self._hang_up(worker)
        del self._workers[worker.number]
        if self._queue.broken is not None:
            return
        self._recall()
        if worker.at is not None:
            died = f"worker processes {_manner(worker, code, self._timeout)}"
            self._redo(worker.at, died, place=worker.last_place())
        elif not worker.ready:
            self._barren += 1
        if self._barren > BARREN:
            self._queue.break_off(
                WorkerError(
                    f"{self._barren} worker processes in a row {_manner(worker, code, None)} "
                    "before they began to work. Try workers=0 to see the error itself."
                )
            )
            return
        self.restarts += 1
        self._fork()

    def _replace_forkserver(self) -> None:
        # its workers have died with it
        self._selector.unregister(self._control)
        self._control.close()
        code = self._forkserver.wait()
        dead = list(self._workers.values())
        for worker in dead:
            self._hear(worker)
            self._hang_up(worker)
        self._workers.clear()
        self._recall()
        with self._queue.lock:
            begun = [w.at for w in dead if w.at is not None]
            self._queue.put_back([future for future in begun if future.state == "asked"])
        self._barren += 1
        if self._barren > BARREN:
            raise WorkerError(f"the process that forks workers ended with code {code}")
        self.restarts += len(dead)
        self._start_forkserver()

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

    def _wake_up(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"x")

    def close(self) -> None:
        """End the processes. Works in progress have half a second to finish."""
        self._closing = True
        super().close()
        self._wake_up()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

    def _shut(self) -> None:
        with self._queue.lock:
            self._closing = True
            with contextlib.suppress(OSError):  # a forked process may have it open too
                self._tasks.shutdown(socket.SHUT_RDWR)
            self._tasks.close()
        self._pulled.close()
        for worker in self._workers.values():
            worker.link.close()
        if hasattr(self, "_forkserver"):
            self._end_forkserver()
        self._selector.close()
        for end in (self._wake, self._waker):
            end.close()
        os.close(self._dataset.fd)

    def _end_forkserver(self) -> None:
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        # the socket closes when the forkserver ends; Popen.wait with a timeout would poll and sleep
        self._control.settimeout(PATIENCE)
        try:
            while self._control.recv(packets.PACKET):
                pass
        except TimeoutError:
            self._forkserver.kill()
        except OSError:
            pass
        self._control.close()
        self._forkserver.wait()


class _Block:
    # a result that has arrived, unpickled when asked for
    def __init__(self, data: bytes, buffers: list[NDArray[np.uint8]]) -> None:
        self._data, self._buffers = data, buffers

    def __call__(self) -> Block:
        return pickle.loads(self._data, buffers=self._buffers)


def _manner(worker: Worker, code: int, timeout: float | None) -> str:
    if worker.hung:
        return f"hung for more than {timeout} s"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"died of {signal.Signals(-code).name}"
    return f"exited with code {code}"
