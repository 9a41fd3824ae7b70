"""Who evaluates while the loop goes on: Ray actors, on as many machines as a cluster has."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ChainError, WorkerError, need
from pipeline.nodes import Part
from pipeline.workers import dataset_bytes, failure, ray_keeper
from pipeline.workers.blame import BARREN, blame
from pipeline.workers.logs import Relay
from pipeline.workers.queued import QueuedExecutor
from pipeline.workers.ray_actor import Done, Evaluator, Sent
from pipeline.workers.threads import check_count
from pipeline.workers.tickets import Book, Ticket, closed, raising


@dataclass(frozen=True)
class Ray:
    """n Ray actors evaluate: for preprocessing that outgrows one machine.

    Where the process is connected to Ray already, that cluster is used. Otherwise `address` is
    connected to, or a Ray of this machine alone is started, until the last loader that uses it is
    closed. The dataset is put into Ray's object store once; `pipeline`, and the modules that its
    functions come from, must be importable on every machine (Ray's runtime_env can see to that).
    An actor that dies is replaced, its work done again.

    Attributes:
        n: actors.
        address: of a cluster, as `ray.init` takes it: "auto", "10.0.0.1:6379"; None: this machine.
        cpus: that each actor claims of a cluster, so that they spread over its machines.

    Raises:
        ChainError: n is below 1, or cpus below 0.
        MissingExtraError: Ray is not installed.
    """

    n: int
    address: str | None = None
    cpus: float = 1.0

    def __post_init__(self) -> None:
        check_count("Ray", self.n)
        if not self.cpus >= 0:
            raise ChainError(f"cpus={self.cpus!r}: give 0 or more")
        _ray()

    def open(self, chain: Part, *, ahead: int, stack: bool) -> QueuedExecutor:
        def start(book: Book) -> _Crew:
            return _Crew(chain, book, self, Sent.of(*dataset_bytes.dumps(chain, stack)))

        return QueuedExecutor(start, workers=self.n, ahead=ahead, fresh=False)


def _ray() -> Any:
    try:
        import ray
    except ImportError as e:
        raise need("ray", "ray") from e
    return ray


class _Crew:
    # a thread for each actor asks it for one work at a time, so a death has one work to blame
    def __init__(self, chain: Part, book: Book, options: Ray, dataset: Sent) -> None:
        self._chain, self._book = chain, book
        self._closing = False
        self.restarts = 0
        self._relay = Relay()
        self._ray = _SESSION.enter(options)
        self._dataset = self._ray.put(dataset)
        cpus = self._claim(options)
        spread = {"num_cpus": cpus, "scheduling_strategy": "SPREAD", "max_restarts": 0}
        self._remote = self._ray.remote(**spread)(Evaluator)
        self._actors: dict[int, Any] = {}
        self._started = time.monotonic()
        self._threads = [
            threading.Thread(target=self._run, args=(i,), name=f"lockstep-ray-{i}", daemon=True)
            for i in range(options.n)
        ]
        for thread in self._threads:
            thread.start()

    def _claim(self, options: Ray) -> float:
        if _SESSION.alone:
            return 0
        there = self._ray.cluster_resources().get("CPU", 0)
        if options.n * options.cpus > there:
            warnings.warn(
                f"{options} wants {options.n * options.cpus:g} CPUs of a Ray cluster that has "
                f"{there:g}: some actors wait until it grows. Use fewer, or cpus=0.",
                RuntimeWarning,
                stacklevel=2,
            )
        return options.cpus

    def up(self) -> float:
        return (time.monotonic() - self._started) * len(self._threads)

    # ---- one actor's thread

    def _run(self, i: int) -> None:
        try:
            self._hire(i)
            while (ticket := self._book.await_pull()) is not None:
                if not self._evaluate(i, ticket):
                    self._hire(i)
                del ticket
        except BaseException as error:
            if not self._closing:
                self._book.break_off(error)

    def _hire(self, i: int) -> None:
        """Make an actor that has the dataset."""
        errors = self._ray.exceptions
        last: Exception | None = None
        for _ in range(BARREN):
            if self._closing:
                return
            actor = self._actors[i] = self._remote.remote()
            try:
                failed = self._ray.get(actor.load.remote(self._dataset))
            except errors.RayTaskError as e:
                raise WorkerError(f"an actor cannot read what it is sent: {e}") from e
            except errors.RayError as e:
                last = e
                continue
            if failed:
                raise failure.unpack(failed)
            return
        raise WorkerError(
            f"{BARREN} Ray actors in a row died before they began to work. Try workers=0 to see "
            "whether the dataset is to blame, and look into Ray's logs."
        ) from last

    def _evaluate(self, i: int, ticket: Ticket) -> bool:
        """Whether the actor has lived through a work."""
        errors = self._ray.exceptions
        try:
            done: Done = self._ray.get(self._actors[i].evaluate.remote(ticket.work))
        except errors.RayTaskError as e:
            told = WorkerError(f"an actor could not send what it evaluated: {e}")
            self._book.finish(ticket, raising(told), 0, 0.0)
            return True
        except errors.RayError as e:
            if not self._closing:
                self._bury(i, ticket, e)
            return False
        self._book.measured(done.stages)
        self._relay.say(done.logs)
        outcome = failure.raised(done.error) if done.block is None else done.block.loads
        self._book.finish(ticket, outcome, done.size, done.seconds)
        return True

    def _bury(self, i: int, ticket: Ticket, manner: Exception) -> None:
        self._kill(self._actors[i])  # it may only have been out of reach
        self.restarts += 1
        died = f"Ray actors died ({type(manner).__name__})"
        blame(self._book, self._chain, ticket, died, manner)

    # ---- the end

    def _kill(self, actor: Any) -> None:
        with contextlib.suppress(Exception):  # Ray may have been shut down by others
            self._ray.kill(actor)

    def close(self) -> None:
        """End actors and threads."""
        self._closing = True
        self._book.break_off(closed())
        deadline = time.monotonic() + 5
        while any(t.is_alive() for t in self._threads) and time.monotonic() < deadline:
            # again and again: a thread may just have made another
            for actor in list(self._actors.values()):
                self._kill(actor)
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join(timeout=0.1)
        self._actors.clear()
        del self._dataset
        _SESSION.leave()


class _Session:
    # Ray is one for a process: what was begun here ends with its last user, all else stays
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._own = False
        self._folder = ""
        self._keeper: subprocess.Popen[bytes] | None = None

    @property
    def alone(self) -> bool:
        """Whether Ray runs on this machine, for our loaders only."""
        return bool(self._folder)

    def enter(self, options: Ray) -> Any:
        """Ray, connected."""
        ray = _ray()
        with self._lock:
            if not ray.is_initialized():
                self._start(ray, options.address)
            self._users += 1
        return ray

    def _start(self, ray: Any, address: str | None) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        self._own, self._users = True, 0
        if address is not None:
            ray.init(address=address, **quiet)
            return
        # sockets lie in there, and the kernel wants their paths short
        place = tempfile.gettempdir()
        place = "/tmp" if len(place) > 16 and os.access("/tmp", os.W_OK) else place
        self._folder = tempfile.mkdtemp(prefix="lockstep-ray-", dir=place)
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", ray_keeper.__file__, self._folder],
            stdin=subprocess.PIPE,
            process_group=0,
        )
        ray.init("local", include_dashboard=False, _temp_dir=self._folder, **quiet)

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._own:
                with contextlib.suppress(Exception):
                    _ray().shutdown()
                shutil.rmtree(self._folder, ignore_errors=True)
                if self._keeper is not None:
                    self._keeper.communicate()  # it sees that nothing is left, and ends
                self._own, self._folder, self._keeper = False, "", None


_SESSION = _Session()
