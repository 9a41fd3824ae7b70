"""Ray actors as workers, on any number of machines."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ChainError
from pipeline.nodes import Part
from pipeline.workers.executor import Crew, Parallel
from pipeline.workers.queue import Queue


@dataclass(frozen=True)
class Ray(Parallel):
    """n Ray actors evaluate: for preprocessing that one machine is too small for.

    If the process is connected to Ray already, that cluster is used. Otherwise `ray.init` connects
    to `address`, to RAY_ADDRESS as `ray job submit` sets it, or starts Ray on this machine; it is
    shut down with the last loader that uses it.
    The dataset is put into Ray's object store once. `pipeline`, and the modules that its functions
    come from, must be importable on every machine (Ray's runtime_env can see to that); folders of
    `sys.path` and the working directory are used there, too, where they exist. An actor that dies
    is replaced, and its work redone. A loader keeps its actors, and what they claim, until it is
    closed.

    Attributes:
        n: how many actors.
        address: of a cluster, as for `ray.init`: "auto", "10.0.0.1:6379", "local" for this machine;
            None for RAY_ADDRESS, or this machine.
        cpus: CPUs that each actor claims in a cluster, so that actors spread over its machines.

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
        from pipeline.workers.ray_crew import library

        library()

    def _crew(self, chain: Part, queue: Queue, stack: bool) -> Crew:
        from pipeline.workers import sending
        from pipeline.workers.ray_crew import RayCrew

        return RayCrew(chain, queue, self, sending.dumps(chain, stack))
