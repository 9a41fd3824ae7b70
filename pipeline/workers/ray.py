"""Who evaluates while the loop goes on: Ray actors, on as many machines as a cluster has."""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from dataclasses import dataclass
from typing import Any

from pipeline.chain import Chain
from pipeline.errors import ChainError, WorkerError, need
from pipeline.workers import failure, sending
from pipeline.workers.executor import Crew, Parallel
from pipeline.workers.logs import Relay
from pipeline.workers.queue import Future, Queue, raising
from pipeline.workers.ray_actor import Evaluator, Pickle, Result

BARREN = 10  # actors in a row that may die before they have begun to work


@dataclass(frozen=True)
class Ray(Parallel):
    """n Ray actors evaluate: for preprocessing that outgrows one machine.

    Where the process is connected to Ray already, that cluster is used. Otherwise `ray.init`
    connects to `address`, or starts a Ray of this machine; it is shut down with the last loader
    that uses it. The dataset is put into Ray's object store once; `pipeline`, and the modules that
    its functions come from, must be importable on every machine (Ray's runtime_env can see to
    that). An actor that dies is replaced, its work done again.

    Attributes:
        n: actors.
        address: of a cluster, as `ray.init` takes it: "auto", "10.0.0.1:6379"; None: this machine.
        cpus: that each actor claims of a cluster, so that they spread over its machines.

    Raises:
        ChainError: n is below 1, or cpus below 0.
        MissingExtraError: Ray is not installed.
    """

    address: str | None = None
    cpus: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.cpus >= 0:
            raise ChainError(f"cpus={self.cpus!r}: give 0 or more")
        _ray()

    def _crew(self, chain: Chain, queue: Queue, stack: bool) -> Crew:
        return _Crew(chain, queue, self, sending.dumps(chain, stack))


def _ray() -> Any:
    try:
        import ray
    except ImportError as e:
        raise need("ray", "ray") from e
    return ray


class _Crew(Crew):
    # a thread for each actor asks it for one work at a time, so a death has one work to blame
    def __init__(self, chain: Chain, queue: Queue, options: Ray, dataset: sending.Sent) -> None:
        super().__init__(chain, queue, options.n)
        self._closing = False
        self._relay = Relay()
        self._ray = _SESSION.enter(options)
        self._dataset = self._ray.put(Pickle.of(dataset.data, dataset.buffers))
        cpus = self._claim(options)
        spread = {"num_cpus": cpus, "scheduling_strategy": "SPREAD", "max_restarts": 0}
        self._remote = self._ray.remote(**spread)(Evaluator)
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

    def _evaluate(self, i: int, future: Future) -> bool:
        """Whether the actor has lived through a work."""
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
        self._queue.measured(result.stages)
        self._relay.say(result.logs)
        block = result.block
        outcome = failure.raised(result.error) if block is None else block.loads
        self._queue.finish(future, outcome, result.size, result.seconds)
        return True

    def _bury(self, i: int, future: Future, manner: Exception) -> None:
        self._kill(self._actors[i])  # it may only have been out of reach
        self.restarts += 1
        self._redo(future, f"Ray actors died ({type(manner).__name__})", cause=manner)

    # ---- the end

    def _kill(self, actor: Any) -> None:
        with contextlib.suppress(Exception):  # Ray may have been shut down by others
            self._ray.kill(actor)

    def close(self) -> None:
        """End actors and threads."""
        self._closing = True
        super().close()
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
    """The connection to Ray, of which a process has one: what loaders began, the last one ends.

    Attributes:
        alone: whether Ray runs on this machine, for our loaders only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._own = self.alone = False

    def enter(self, options: Ray) -> Any:
        """Ray, connected."""
        ray = _ray()
        with self._lock:
            if not ray.is_initialized():
                where = "local" if options.address is None else options.address
                ray.init(where, include_dashboard=None, log_to_driver=False, logging_level="error")
                self._own, self.alone, self._users = True, options.address is None, 0
            self._users += 1
        return ray

    def leave(self) -> None:
        """A loader needs Ray no more."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._own:
                with contextlib.suppress(Exception):
                    _ray().shutdown()
                self._own = self.alone = False


_SESSION = _Session()
