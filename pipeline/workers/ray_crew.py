"""The crew of Ray actors: a thread for each, the connection to Ray, and replacing dead actors."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

from pipeline.errors import WorkerError, need
from pipeline.nodes import Part
from pipeline.workers import failure, sending
from pipeline.workers.executor import Crew
from pipeline.workers.logs import Relay
from pipeline.workers.queue import Future, Queue, raising
from pipeline.workers.ray_actor import Evaluator, Pickle, Result
from pipeline.workers.stats import Worked

if TYPE_CHECKING:
    from pipeline.workers.ray import Ray

LOGGER = logging.getLogger("pipeline")
BARREN = 10  # number of actors in a row that may die before they begin a work
PATIENCE = 10.0  # seconds until it is said that an actor still waits for a place


def library() -> Any:
    """The module `ray`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import ray
    except ImportError as e:
        raise need("ray", "ray") from e
    return ray


class RayCrew(Crew):
    # each actor has a thread that gives it one work at a time: only that can have killed it
    def __init__(self, chain: Part, queue: Queue, options: Ray, dataset: sending.Sent) -> None:
        super().__init__(chain, queue, options.n)
        self._options = options
        self._closing = self._told = False
        self._relay = Relay()
        self._ray = _SESSION.enter(options)
        try:
            self._dataset = self._ray.put(Pickle.of(dataset.data, dataset.buffers))
            self._cpus = self._claim(options)
            spread = {"num_cpus": self._cpus, "scheduling_strategy": "SPREAD", "max_restarts": 0}
            self._remote = self._ray.remote(**spread)(Evaluator)
        except BaseException:
            _SESSION.leave()
            raise
        self._actors: dict[int, Any] = {}
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

    # ---- one actor's thread

    def _run(self, i: int) -> None:
        try:
            self._hire(i)
            while (future := self._queue.await_pull()) is not None:
                if not self._evaluate(i, future):
                    self._hire(i)
                del future
        except BaseException as error:
            if not self._closing:
                self._queue.break_off(error)

    def _hire(self, i: int) -> None:
        """Start an actor and load the dataset into it."""
        errors = self._ray.exceptions
        last: Exception | None = None
        for _ in range(BARREN):
            if self._closing:
                return
            actor = self._actors[i] = self._remote.remote()
            try:
                self._await_place(actor)
                path = [os.path.abspath(folder) for folder in sys.path]
                loading = actor.load.remote(self._dataset, path, os.getcwd())
                failed = self._ray.get(loading)
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

    def _await_place(self, actor: Any) -> None:
        """Wait a while until an actor runs; if it does not, log once what the cluster has."""
        if not self._cpus or self._told:
            return
        ready = actor.__ray_ready__.remote()
        if self._ray.wait([ready], timeout=PATIENCE)[0] or self._closing or self._told:
            return
        self._told = True
        there, free = self._ray.cluster_resources(), self._ray.available_resources()
        LOGGER.warning(
            f"an actor of {self._options} does not run after {PATIENCE:g} s. It claims "
            f"{self._cpus:g} CPUs, and of {there.get('CPU', 0):g} in this Ray cluster "
            f"{free.get('CPU', 0):g} are free. A loader keeps its actors until close(): close "
            "those that are not in use, use fewer workers, or cpus=0."
        )

    def _evaluate(self, i: int, future: Future) -> bool:
        """Have an actor evaluate a work. Returns False if the actor died."""
        errors = self._ray.exceptions
        try:
            result: Result = self._ray.get(self._actors[i].evaluate.remote(future.work))
        except errors.RayTaskError as e:
            told = WorkerError(f"an actor could not send what it evaluated: {e}")
            self._queue.finish(future, raising(told), 0, 0.0)
            return True
        except errors.RayError as e:
            if not self._closing:
                self._bury(i, future, e)
            return False
        started = time.perf_counter() - result.seconds  # by this machine's clock
        self._queue.measured(Worked(future.number, i, started, result.seconds, result.stages))
        self._relay.say(result.logs)
        block = result.block
        outcome = failure.raised(result.error) if block is None else block.loads
        self._queue.finish(future, outcome, result.size, result.seconds)
        return True

    def _bury(self, i: int, future: Future, manner: Exception) -> None:
        self._kill(self._actors[i])  # it may still live, but be unreachable
        self.restarts += 1
        self._redo(future, f"Ray actors died ({type(manner).__name__})", cause=manner)

    # ---- the end

    def _kill(self, actor: Any) -> None:
        with contextlib.suppress(Exception):  # somebody else may have shut Ray down
            self._ray.kill(actor)

    def close(self) -> None:
        """End actors and threads."""
        self._closing = True
        super().close()
        deadline = time.monotonic() + 5
        while any(t.is_alive() for t in self._threads) and time.monotonic() < deadline:
            # repeatedly: a thread may just have started another actor
            for actor in list(self._actors.values()):
                self._kill(actor)
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join(timeout=0.1)
        self._actors.clear()
        del self._dataset
        _SESSION.leave()


class _Session:
    """This process's connection to Ray. If a loader opened it, the last loader closes it.

    Attributes:
        alone: whether Ray runs on this machine for these loaders only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._own = self.alone = False

    def enter(self, options: Ray) -> Any:
        """Connect to Ray if need be, and return the module `ray`."""
        ray = library()
        with self._lock:
            if not ray.is_initialized():
                where = options.address or os.environ.get("RAY_ADDRESS") or "local"
                ray.init(where, include_dashboard=None, log_to_driver=False, logging_level="error")
                self._own, self.alone, self._users = True, where == "local", 0
            self._users += 1
        return ray

    def leave(self) -> None:
        """Count one loader less; disconnect after the last one."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._own:
                with contextlib.suppress(Exception):
                    library().shutdown()
                self._own = self.alone = False


_SESSION = _Session()
