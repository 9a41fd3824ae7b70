"""Stopping a run: on SIGTERM or Ctrl-C, the step finishes and the state is saved."""

from __future__ import annotations

import os
import signal
from functools import cache
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Inside of the context, the first signal is remembered, and a second one ends the process.

    >>> with Stop() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop.signal
    <Signals.SIGTERM: 15>
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._under_way: jax.Array | None = None

    def __enter__(self) -> Stop:
        self._before = {s: signal.signal(s, self._ask) for s in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for s, before in self._before.items():
            signal.signal(s, before)
        self._before = {}

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            # at once: unwinding beside JAX's and Orbax's threads can crash; a run survives a kill
            os._exit(128 + number)
        self.signal = signal.Signals(number)

    def agreed(self) -> bool:
        """Whether any process was asked to stop; every process of the job gets the same answer.

        With several processes the answer is one step late: the signals are combined on the devices
        after the previous step, and read once that step's loss has been read, so nobody waits.
        """
        if jax.process_count() == 1:
            return self.signal is not None
        before, self._under_way = self._under_way, greatest(int(self.signal or 0))
        number = 0 if before is None else int(np.asarray(before))
        if number:
            self.signal = signal.Signals(number)
        return number > 0


def greatest(number: int) -> jax.Array:
    """The greatest of the numbers of all processes, as an array that is being computed: int32[].

    >>> int(greatest(3))
    3
    """
    mesh, combine = _combining()
    flags = jax.make_array_from_callback(
        (mesh.size,),
        NamedSharding(mesh, PartitionSpec("all")),
        lambda _: np.array([number], np.int32),
    )
    return combine(flags)


@cache
def _combining() -> tuple[Mesh, Any]:
    mesh = Mesh(np.array(jax.devices()), ("all",))
    return mesh, jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
