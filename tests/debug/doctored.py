"""Loaders that keep every law but one, and some that keep all: what the doctor is tried on."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import shared_memory
from typing import Any

import numpy as np

from pipeline import Dataset, Loader, TorchFeed, mix

N = 40


class Right:
    """Batches of two numbers, each pass in an order of its own; keeps every law."""

    def __init__(self, host: int = 0, hosts: int = 1) -> None:
        self.at, self.epoch, self.host, self.hosts = 0, 0, host, hosts

    def order(self) -> list[int]:
        """The pass's records."""
        return random.Random(f"pass {self.epoch}").sample(range(N), N)

    def __iter__(self) -> Iterator[Any]:
        epoch = self.epoch
        while self.epoch == epoch:
            ids = self.order()[self.at : self.at + 2]
            self.at += 2
            if self.at == N:
                self.at, self.epoch = 0, self.epoch + 1
            yield {"id": np.array(ids[self.host :: self.hosts])}

    def state_dict(self) -> Any:
        return {"at": self.at, "epoch": self.epoch}

    def load_state_dict(self, state: Any) -> None:
        self.at, self.epoch = state["at"], state["epoch"]


def right(host: int = 0, hosts: int = 1) -> Right:
    return Right(host, hosts)


class Clock(Right):
    def order(self) -> list[int]:
        return random.Random(os.getpid()).sample(range(N), N)


class Unseeded(Right):
    """No two runs are alike, but the state says which this is: it resumes."""

    def __init__(self) -> None:
        super().__init__()
        self.seed = os.urandom(4).hex()

    def order(self) -> list[int]:
        return random.Random(f"{self.seed} {self.epoch}").sample(range(N), N)

    def state_dict(self) -> Any:
        return {**super().state_dict(), "seed": self.seed}

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.seed = state["seed"]


class Replays(Right):
    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.at = max(self.at - 2, 0)


class OnceOnly(Right):
    frozen: Any = None

    def state_dict(self) -> Any:
        return self.frozen or super().state_dict()

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.frozen = dict(state)


class EmptyPass(Right):
    def __iter__(self) -> Iterator[Any]:
        while self.at < N:
            self.at += 2
            yield {"id": np.array(self.order()[self.at - 2 : self.at])}
        self.at, self.epoch = 0, self.epoch + 1


class Aliased(Right):
    def __init__(self) -> None:
        super().__init__()
        self.state = {"at": 0, "epoch": 0, "seen": 0}

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            self.state["seen"] += 1
            yield batch

    def state_dict(self) -> Any:
        self.state |= super().state_dict()
        return {**super().state_dict(), "inner": self.state}


class NoJson(Right):
    def state_dict(self) -> Any:
        return {**super().state_dict(), "seen": {1, 2}}


class Unshuffled(Right):
    def order(self) -> list[int]:
        return list(range(N))


class InWorkers(Right):
    """Another order for each number of workers."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.workers = workers

    def order(self) -> list[int]:
        return random.Random(f"{self.epoch} {self.workers}").sample(range(N), N)


def unseeded_torch(workers: int = 0, hosts: int = 1) -> Any:
    import torch

    records: Any = [{"id": i} for i in range(N)]
    return torch.utils.data.DataLoader(records, 2, shuffle=True, num_workers=workers)


def in_workers(workers: int = 0) -> InWorkers:
    return InWorkers(workers)


class ForHosts(Right):
    """Every host has the same rows."""

    def __iter__(self) -> Iterator[Any]:
        self.host, hosts, self.hosts = 0, self.hosts, 1
        for batch in super().__iter__():
            yield {"id": batch["id"][: 2 // hosts]}


def for_hosts(host: int = 0, hosts: int = 1) -> ForHosts:
    return ForHosts(host, hosts)


def _forever() -> None:
    time.sleep(600)


class Silent(Right):
    """A worker that dies ends the pass, and nobody is told."""

    def __iter__(self) -> Iterator[Any]:
        worker = multiprocessing.get_context("fork").Process(target=_forever, daemon=True)
        worker.start()
        for batch in super().__iter__():
            worker.join(0.05)
            if not worker.is_alive():
                self.at, self.epoch = 0, self.epoch + 1
                return
            yield batch
        worker.kill()
        worker.join()


class Signalled(Exception):
    """An error that is written while another signal arrives."""

    def __str__(self) -> str:
        signal.raise_signal(signal.SIGCHLD)
        return "a worker died"


def _raise(*_: Any) -> None:
    raise RuntimeError("a worker was killed")


class Signals(Right):
    """Raises from a handler of signals, as torch does where a worker has died: at any moment."""

    def __iter__(self) -> Iterator[Any]:
        worker = multiprocessing.get_context("fork").Process(target=_forever, daemon=True)
        worker.start()
        for batch in super().__iter__():
            worker.join(0.05)
            if not worker.is_alive():
                signal.signal(signal.SIGCHLD, _raise)
                raise Signalled
            yield batch
        worker.kill()
        worker.join()


class Littering(Right):
    """Starts a process that nobody ends, and memory that nobody unlinks."""

    def __init__(self) -> None:
        super().__init__()
        code = "import time; time.sleep(600)"
        self.left = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)


class Memory(Right):
    def __init__(self) -> None:
        super().__init__()
        from multiprocessing import resource_tracker

        self.memory = shared_memory.SharedMemory(create=True, size=16)
        resource_tracker.unregister(self.memory._name, "shared_memory")  # type: ignore[attr-defined]


class OneShot:
    """An iterator that ends once and for all, with a state."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self.at == N:
            raise StopIteration
        self.at += 2
        return {"id": np.array([self.at - 2, self.at - 1])}

    def state_dict(self) -> Any:
        return {"at": self.at}

    def load_state_dict(self, state: Any) -> None:
        self.at = state["at"]


class Slow(Right):
    """Takes longer than it is given, but not much."""

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            time.sleep(0.06)
            yield batch


class Hangs(Right):
    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            time.sleep(600 if self.at == 10 else 0)
            yield batch


class Fails(Right):
    def state_dict(self) -> Any:
        raise NotImplementedError("no state yet")


def stateless() -> list[Any]:
    return [{"id": np.array([2 * i, 2 * i + 1])} for i in range(N // 2)]


def broken() -> Any:
    raise ValueError("no such bucket")


def empty() -> Any:
    return []


def number() -> int:
    return 5


# ---- Lockstep's own


def shuffled(workers: int = 0, host: int = 0, hosts: int = 1) -> Loader:
    ds = Dataset({"id": np.arange(N)}, seed=1).shuffle()
    return Loader(ds, 4, workers=workers, host=host, hosts=hosts)


def packed_mix(workers: int = 0, host: int = 0, hosts: int = 1) -> Loader:
    """Packed components, mixed, in lanes: the hardest that hosts can share."""
    return Loader(packed(), 8, steps=12, workers=workers, host=host, hosts=hosts)


def fed(workers: int = 0, hosts: int = 1) -> Loader:
    """The same for torch's ranks."""
    return Loader(packed(), 8, steps=12, workers=workers, feed=TorchFeed())


def packed() -> Dataset:
    def part(seed: int) -> Dataset:
        documents = [np.full(1 + i % 7, i, np.int32) for i in range(300)]
        return Dataset(documents, seed=seed).shuffle().pack(17)

    return mix({"a": part(1), "b": part(2)}, {"a": 2, "b": 1}, stop="never").lanes(4)
