"""What the works of an executor have cost, over all its crews and queues."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

from pipeline.meter import Tally, add_up
from pipeline.workers.stats import QueueStats


class Totals:
    """Sums that outlive the queues which add to them. Thread-safe.

    A queue ends with its crew, at `close`. What was counted stays true, and a worker that is slow
    to end still counts here.
    """

    def __init__(self) -> None:
        # reentrant: a finalizer may run in a thread that holds it
        self._lock = threading.RLock()
        self._stages: dict[str, Tally] = {}
        self._works = self._submitted = self._restarts = 0
        self._busy = self._wait = self._up = 0.0

    def numbered(self) -> int:
        """The number of a work that is submitted: no two works of an executor share one."""
        with self._lock:
            self._submitted += 1
            return self._submitted - 1

    def measured(self, stages: Mapping[str, Tally], seconds: float) -> None:
        """Count the stages of a work, and the seconds that its evaluation took."""
        with self._lock:
            add_up(self._stages, stages)
            self._busy += seconds

    def done(self) -> None:
        """Count a work that a worker has done."""
        with self._lock:
            self._works += 1

    def waited(self, seconds: float) -> None:
        """Count seconds for which the caller waited for a result."""
        with self._lock:
            self._wait += seconds

    def ended(self, *, up: float, restarts: int) -> None:
        """Count a crew that has ended: seconds that its workers were up, and those replaced."""
        with self._lock:
            self._up += up
            self._restarts += restarts

    def added_to(self, now: QueueStats, *, up: float) -> QueueStats:
        """The statistics of the present queue and crew, with all that was counted.

        Args:
            now: what waits in the queue, and the workers replaced in the present crew.
            up: seconds that the present workers are up, times their number.
        """
        with self._lock:
            up += self._up
            return replace(
                now,
                stages=dict(self._stages),
                works=self._works,
                busy=self._busy,
                wait=self._wait,
                occupancy=min(1.0, self._busy / up) if up else 0.0,
                restarts=now.restarts + self._restarts,
            )
