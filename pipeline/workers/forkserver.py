"""The forkserver: a bare interpreter with one thread, which imports what workers need, then forks.

So n workers cost one start, and a dead worker is replaced at once.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from pipeline.errors import OURS
from pipeline.workers import child, executor, packets, sending

GRACE = 0.5  # seconds in which workers may end by themselves
_DEATH = 1  # PR_SET_PDEATHSIG
_HARMLESS = {"jemalloc_bg_thd"}  # threads that a fork does not harm; pyarrow's allocator has one
# code for a fresh interpreter: imports our package, whatever else is called `pipeline` on its path
IMPORT_OURS = (
    f"import sys; sys.path.insert(0, {os.path.dirname(os.path.dirname(OURS))!r}); "
    "import pipeline; sys.path.pop(0); "
)
_BOOT = (
    "{ours}sys.path[:] = {path!r}; from pipeline.workers.forkserver import main; main(*{args!r})"
)
_ENVIRONMENT = {
    # n workers with a thread for each core would compete for the cores
    **dict.fromkeys(
        (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "NUMEXPR_NUM_THREADS",
            "VECLIB_MAXIMUM_THREADS",
            "ARROW_IO_THREADS",
        ),
        "1",
    ),
    # else glibc returns memory after each work and allocates it again for the next, which takes
    # half the time of a light work
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}


class Fork(NamedTuple):
    """Request: fork a worker. Its end of the link is sent along."""

    worker: int


class Kill(NamedTuple):
    """Request: kill this worker."""

    worker: int


class Birth(NamedTuple):
    """Reply: a worker's process id."""

    worker: int
    pid: int


class Exit(NamedTuple):
    """Reply: a worker has ended; `code` is as from `os.waitstatus_to_exitcode`."""

    worker: int
    code: int


def start(fds: tuple[int, ...], parcel: sending.Parcel) -> subprocess.Popen[bytes]:
    """Start the forkserver's process, which runs `main`.

    It has its own process group, so that a terminal's Ctrl-C does not reach it. Working directory
    and import path are those of this process. It does not import our `__main__`.

    Args:
        fds: descriptors of control and queue.
        parcel: the dataset.
    """
    fds = *fds, parcel.fd
    return subprocess.Popen(
        [sys.executable, "-c", _boot(*fds, parcel.sizes, parcel.modules, os.getpid())],
        pass_fds=fds,
        env={**os.environ, **_ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        process_group=0,
    )


def _boot(*args: Any) -> str:
    return _BOOT.format(ours=IMPORT_OURS, path=sys.path, args=args)


def main(
    control: int,
    queue: int,
    dataset: int,
    sizes: Sequence[int],
    modules: Sequence[str],
    parent: int,
) -> None:
    """Fork workers on request, until the parent has ended or closes the control socket.

    Args:
        control: descriptor of the socket to the parent.
        queue: descriptor of the socket that workers pull from.
        dataset: descriptor of the memory that holds the dataset's pickle and its buffers.
        sizes: bytes of the pickle and of each buffer.
        modules: names to import before the first fork.
        parent: process id of the parent.
    """
    # the parent handles a terminal's Ctrl-C
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent)
    executor.be_worker("a worker process")
    for i, module in enumerate(modules):
        _import(module)
        if unsafe_threads() > 1:  # lost in a fork: start over, and let workers import this module
            rest = [*modules[:i], *modules[i + 1 :]]
            code = _boot(control, queue, dataset, list(sizes), rest, parent)
            os.execv(sys.executable, [sys.executable, "-c", code])
    _Forkserver(socket.socket(fileno=control), queue, dataset, sizes).run()
    os._exit(0)  # skips the interpreter's slow shutdown


def _import(module: str) -> None:
    # an import that fails here fails in the workers too, which can report the error
    with suppress(BaseException):
        importlib.import_module(module)


def unsafe_threads() -> int:
    """How many threads this process has that a fork would harm. With more than one, do not fork."""
    count = 0
    for task in os.listdir("/proc/self/task") if os.path.isdir("/proc/self/task") else ():
        with open(f"/proc/self/task/{task}/comm") as file:
            count += file.read().strip() not in _HARMLESS
    return count


def die_with(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_DEATH, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class _Forkserver:
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
        packets.send(self._control, Birth(worker, pid))

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
                atexit._run_exitfuncs()  # close what a source or a user's function has left open
            os._exit(code)

    def _load(self) -> Any:
        # private pages: workers share those that they do not write to
        memory = memoryview(mmap.mmap(self._dataset, 0, access=mmap.ACCESS_COPY))
        parts: list[memoryview] = []
        at = 0
        for size in self._sizes:
            parts.append(memory[at : at + size])
            at += -(-size // sending.ALIGN) * sending.ALIGN
        return sending.loads(parts[0], parts[1:])

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
                return  # the parent has ended

    def _end(self) -> None:
        deadline = time.monotonic() + GRACE
        while self._children and time.monotonic() < deadline:
            select.select([self._wake], [], [], 0.02)
            self._reap()
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
