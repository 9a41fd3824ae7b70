"""A loader's own figures: what it handed out, how long that took, and what its own thread did."""

from __future__ import annotations

import re
import time
from typing import Any

from pipeline.meter import Sums, Tally, add_up, batch_bytes
from pipeline.workers.stats import QueueStats, StageStats, Stats


class Account:
    """A loader's own statistics: what it handed out, and how long that took."""

    def __init__(self) -> None:
        self.late = Sums()  # of stages that the loop's own thread evaluates after the workers
        self._started: float | None = None
        self._batches = self._rows = self._bytes = 0
        self._wait = self._first = 0.0
        self._own = Sums()  # of collate, and of the feed where there is one
        self._stopped: float | None = None  # since when
        self._idle = 0.0  # seconds for which it was stopped

    @property
    def batches(self) -> int:
        """How many batches were handed out."""
        return self._batches

    def collated(self, batch: Any, rows: int, seconds: float) -> int:
        """Count a batch that was made; its bytes."""
        return self._counted("collate", batch, rows, seconds)

    def fed(self, batch: Any, rows: int, seconds: float) -> int:
        """Count a batch that was put onto devices; its bytes there."""
        return self._counted("feed", batch, rows, seconds)

    def _counted(self, stage: str, batch: Any, rows: int, seconds: float) -> int:
        nbytes = batch_bytes(batch)
        self._own.count(stage, rows, nbytes, seconds)
        return nbytes

    def handed_out(self, rows: int, nbytes: int, asked: float) -> None:
        """Count a batch. `asked` is when `next` was called (`time.perf_counter`)."""
        waited = time.perf_counter() - asked
        if self._stopped is not None:
            self._idle += max(0.0, asked - self._stopped)
            self._stopped = None
        if self._started is None:
            self._started, self._first = asked, waited
        self._wait += waited
        self._batches += 1
        self._rows += rows
        self._bytes += nbytes

    def stop(self) -> None:
        """Stop the clock until the next batch: the loop is over, or the loader is closed."""
        if self._started is not None and self._stopped is None:
            self._stopped = time.perf_counter()

    def stats(self, queue: QueueStats, ahead: int) -> Stats:
        """The statistics as of now."""
        tallies = dict(queue.stages or {})
        add_up(tallies, self.late.tallies())
        own, theirs = self._own.tallies(), tallies.pop("collate", Tally())
        mine = own.pop("collate", Tally())
        tallies["collate"] = mine._replace(seconds=mine.seconds + theirs.seconds)
        tallies.update(own)
        stages = tuple(StageStats(name, *tally) for name, tally in tallies.items())
        now = (self._stopped or time.perf_counter()) - self._idle
        return Stats(
            stages=tuple(sorted(stages, key=_place)),
            batches=self._batches,
            rows=self._rows,
            bytes=self._bytes,
            seconds=0.0 if self._started is None else now - self._started,
            first=self._first,
            wait=self._wait,
            workers=queue.workers,
            busy=queue.busy,
            occupancy=queue.occupancy,
            ready=queue.ready,
            ready_bytes=queue.ready_bytes,
            asked=queue.asked,
            ahead=ahead,
            restarts=queue.restarts,
            works=queue.works,
            tried=queue.tried,
            choice=queue.choice,
        )


_STAGE = re.compile(r"(?:(?P<path>.*?): )?(?:stage (?P<number>\d+): .*|\w+)", re.DOTALL)
_LATE = ("collate", "feed")


def _place(stage: StageStats) -> tuple[Any, ...]:
    # a join's parts before the join, each from its source up; then what the loader does
    if stage.name in _LATE:
        return (2, _LATE.index(stage.name)), 0
    found = _STAGE.fullmatch(stage.name)
    path, number = found.group("path", "number") if found else (None, None)
    parts = path.split("/") if path else []
    # parts without names are numbered
    places = [(0, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]
    return *places, (1,), int(number) + 1 if number else 0
