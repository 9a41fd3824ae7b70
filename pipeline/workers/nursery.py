"""Where worker processes are born: a bare interpreter with one thread, which has imported what
all of them need, forks them. So n workers cost one start, and a dead one is replaced at once.
"""

from __future__ import annotations

import atexit
import ctypes
import mmap
import os
import pickle
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.workers import child, packets

GRACE = 0.5  # seconds for workers to end by themselves
_DEATH = 1  # PR_SET_PDEATHSIG


class Fork(NamedTuple):
    """Asked: a worker; its link comes beside."""

    worker: int


class Kill(NamedTuple):
    """Asked: end this worker at once."""

    worker: int


class Born(NamedTuple):
    """Told: a worker's process id."""

    worker: int
    pid: int


class Exit(NamedTuple):
    """Told: how a worker ended, as `os.waitstatus_to_exitcode` has it."""

    worker: int
    code: int


def main(control: int, queue: int, dataset: int, sizes: Sequence[int], parent: int) -> None:
    """Fork workers until the parent is gone or done.

    Args:
        control: descriptor of the link to the parent.
        queue: descriptor of the socket that workers pull from.
        dataset: descriptor of the memory that holds the dataset's pickle, and its buffers.
        sizes: bytes of each of these.
        parent: its process id.
    """
    # a terminal's Ctrl-C is the parent's business
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent)
    _Nursery(socket.socket(fileno=control), queue, dataset, sizes).run()
    os._exit(0)  # nothing here needs an interpreter's slow end


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent's thread ends, however that comes."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_DEATH, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class _Nursery:
    def __init__(
        self, control: socket.socket, queue: int, dataset: int, sizes: Sequence[int]
    ) -> None:
        self._control, self._queue, self._dataset, self._sizes = control, queue, dataset, sizes
        self._children: dict[int, int] = {}  # pid -> worker
        self._wake, wakeup = socket.socketpair()
        self._wake.setblocking(False)
        wakeup.setblocking(False)
        self._wakeup = wakeup
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)

    def run(self) -> None:
        inbox = packets.Inbox(self._control)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._wake.fileno() in ready:
                self._wake.recv(4096)
                self._reap()
            if self._control.fileno() in ready:
                received = inbox.receive()
                if received is None:
                    return self._end()
                self._obey(*received)

    def _obey(self, message: Any, fds: list[int]) -> None:
        if isinstance(message, Fork):
            self._fork(message.worker, fds[0])
        elif isinstance(message, Kill):
            for pid in [p for p, worker in self._children.items() if worker == message.worker]:
                os.kill(pid, signal.SIGKILL)

    def _fork(self, worker: int, link: int) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be_worker(link, parent)
        os.close(link)
        self._children[pid] = worker
        packets.send(self._control, Born(worker, pid))

    def _be_worker(self, link: int, parent: int) -> None:
        code = 1
        try:
            die_with(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self._control, self._wake, self._wakeup):
                end.close()
            sockets = socket.socket(fileno=self._queue), socket.socket(fileno=link)
            child.serve(self._load, *sockets)
            code = 0
        except (BrokenPipeError, ConnectionError):
            code = 0  # the parent has ended
        except Exception:
            traceback.print_exc()
        finally:
            if code == 0:
                atexit._run_exitfuncs()  # what a source or a user's function has left open
            os._exit(code)

    def _load(self) -> Any:
        # private pages: what workers do not write, they share
        memory = memoryview(mmap.mmap(self._dataset, 0, access=mmap.ACCESS_COPY))
        parts: list[memoryview] = []
        at = 0
        for size in self._sizes:
            parts.append(memory[at : at + size])
            at += -(-size // 64) * 64
        return pickle.loads(parts[0], buffers=parts[1:])

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            worker = self._children.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            try:
                packets.send(self._control, Exit(worker, code))
            except OSError:
                return  # nobody listens any more

    def _end(self) -> None:
        deadline = time.monotonic() + GRACE
        while self._children and time.monotonic() < deadline:
            select.select([self._wake], [], [], 0.02)
            self._reap()
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
