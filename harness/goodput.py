"""How a run's wall time was spent, over all launches: on steps, and by name on everything else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.files import LineLog

# in the order of display; "step" is the productive part
BUCKETS: tuple[str, ...] = ("step", "init", "compile", "data_wait", "save", "restore", "evaluation")
BUCKETS += ("replayed_steps", "stopped")
_COMPILING = "/jax/core/compile/backend_compile_duration"


class Clock:
    """Charges time to one bucket at any moment, so that a launch's buckets add up to its wall time.

    Args:
        log: where `keep` appends a line; None in all processes but the first.
        launch: number of this launch; nothing is written until it is known.
        began: Unix time in seconds at which the launch began; by default when the process started.
        now: returns the current Unix time.

    >>> ticks = iter([1.0, 2.0, 5.0, 6.0])
    >>> clock = Clock(None, 0, began=0.0, now=lambda: next(ticks))
    >>> with clock("save"):
    ...     pass
    >>> clock.seconds["init"], clock.seconds["save"]
    (1.0, 1.0)
    """

    def __init__(
        self,
        log: LineLog | None,
        launch: int | None = None,
        *,
        began: float | None = None,
        now: Any = time.time,
    ) -> None:
        self._log, self.launch, self._now = log, launch, now
        self.began = self._last = process_began() if began is None else began
        self._kept = self._last
        self.bucket = "init"
        self.seconds = dict.fromkeys(BUCKETS, 0.0)

    def _charge(self) -> None:
        now = max(self._now(), self._last)  # if the clock was set back, charge nothing
        self.seconds[self.bucket] += now - self._last
        self._last = now

    @contextmanager
    def __call__(self, bucket: str) -> Iterator[None]:
        """Charge the time inside of the context to `bucket`, and not to the enclosing one."""
        self._charge()
        before, self.bucket = self.bucket, bucket
        try:
            yield
        finally:
            self._charge()
            self.bucket = before

    def compiled(self, event: str, duration_secs: float, **_: Any) -> None:
        """A listener for jax.monitoring: move seconds of compilation to the bucket "compile"."""
        if event != _COMPILING or self.bucket == "compile":
            return
        self._charge()
        moved = min(duration_secs, self.seconds[self.bucket])
        self.seconds[self.bucket] -= moved
        self.seconds["compile"] += moved

    def keep(self, *, at_most_every: float = 0.0) -> None:
        """Append a line with the seconds of each bucket so far."""
        self._charge()
        if self._log is None or self.launch is None or self._last - self._kept < at_most_every:
            return
        self._kept = self._last
        seconds = {k: round(v, 3) for k, v in self.seconds.items() if v}
        line = {"launch": self.launch, "began": self.began, "until": self._last}
        self._log.append({**line, "seconds": seconds})


@contextmanager
def clock_of(path: Path) -> Iterator[Clock]:
    """This launch's clock, from the start of the process on. The first process writes to `path`."""
    import jax

    log = None if jax.process_index() else LineLog(path)
    clock = Clock(log)
    jax.monitoring.register_event_duration_secs_listener(clock.compiled)
    try:
        yield clock
    finally:
        clock.keep()
        if log is not None:
            log.close()
        jax.monitoring.unregister_event_duration_listener(clock.compiled)


def process_began() -> float:
    """Unix time in seconds at which this process started; now if /proc does not tell."""
    now = time.time()
    try:
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return now - max(0.0, uptime - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return now


def account(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds of each bucket over all launches, from the lines of goodput.jsonl.

    The last line of each launch counts. The time between it and the next launch is "stopped".

    >>> first = {"launch": 0, "began": 0.0, "until": 4.0, "seconds": {"init": 1.0, "step": 3.0}}
    >>> second = {"launch": 1, "began": 9.0, "until": 10.0, "seconds": {"init": 1.0}}
    >>> spent = account([first, second])
    >>> spent["stopped"], sum(spent.values())
    (5.0, 10.0)
    """
    # by their beginning: a launch without any step leaves its number to the next
    launches = {line["began"]: line for line in lines}
    spent = dict.fromkeys(BUCKETS, 0.0)
    before: float | None = None
    for _, line in sorted(launches.items()):
        for bucket, seconds in line["seconds"].items():
            spent[bucket] = spent.get(bucket, 0.0) + seconds
        if before is not None:
            spent["stopped"] += max(0.0, line["began"] - before)
        before = line["until"]
    return spent


def report(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Wall time, goodput (the share of it spent on new steps), and the seconds of each bucket."""
    spent = account(lines)
    wall = lines[-1]["until"] - min(line["began"] for line in lines) if lines else 0.0
    return {
        "wall": round(wall, 3),
        "goodput": round(spent["step"] / wall, 4) if wall else None,
        "seconds": {k: round(v, 3) for k, v in spent.items()},
    }


def as_table(told: dict[str, Any]) -> str:
    """A `report` for people."""
    wall = told["wall"] or 1.0
    lines = [f"{'bucket':<15} {'seconds':>12} {'share':>7}"]
    for bucket, seconds in told["seconds"].items():
        lines.append(f"{bucket:<15} {seconds:>12,.2f} {seconds / wall:>7.1%}")
    lines.append(f"{'wall time':<15} {told['wall']:>12,.2f}")
    lines.append(f"goodput {told['goodput'] or 0:.1%}: the share of wall time that was new steps")
    return "\n".join(lines)
