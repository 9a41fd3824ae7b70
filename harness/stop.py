"""How a run is asked to stop: SIGTERM and Ctrl-C let the step end and the state be saved."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """While it is entered, the first signal is remembered and a second one ends the process.

    >>> with Stop() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop.signal
    <Signals.SIGTERM: 15>
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        self._before = {s: signal.signal(s, self._ask) for s in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            # at once: unwinding beside jax's and Orbax's threads can crash, and a run bears a kill
            os._exit(128 + number)
        self.signal = signal.Signals(number)

    def _restore(self) -> None:
        for s, before in self._before.items():
            signal.signal(s, before)
        self._before = {}

    def agreed(self) -> bool:
        """Whether any process was asked; every process of the job gets the same answer."""
        if jax.process_count() == 1:
            return self.signal is not None
        asked = np.array(int(self.signal or 0))
        number = int(np.max(multihost_utils.process_allgather(asked)))
        self.signal = signal.Signals(number) if number else None
        return number > 0
