"""Progress on the terminal: a bar if it is one, else plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_PLAIN_EVERY = 5.0  # seconds between plain lines


def span(seconds: float) -> str:
    """A duration in words.

    >>> span(7), span(107), span(7300)
    ('7s', '1m47s', '2h01m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


@dataclass
class Meter:
    """The progress of one job, with rate and time left, measured from its first advance on.

    The time before the first advance includes what happens once (compilation, opening files), so it
    is not measured. A total that is not known is None.

    >>> meter = Meter("convert", total=4, unit="files", clock=iter([0.0, 1.0, 2.0]).__next__)
    >>> for _ in range(3):
    ...     meter.advance()
    >>> str(meter)
    'convert 3/4 files  1.0/s  1s left'
    """

    what: str
    total: int | None
    unit: str = "steps"
    done: int = 0
    note: str = ""
    clock: InitVar[Callable[[], float]] = time.monotonic
    shown: Callable[[Meter], None] = field(default=lambda _: None, repr=False)

    def __post_init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._from: tuple[float, int] | None = None
        self._rate = 0.0

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count n more as done. `note` is shown beside the rate."""
        self.done += n
        self.note = note
        now = self._clock()
        if self._from is None:
            self._from = now, self.done
        elif now > self._from[0]:
            self._rate = (self.done - self._from[1]) / (now - self._from[0])
        self.shown(self)

    def __str__(self) -> str:
        of = "" if self.total is None else f"/{self.total:,}"
        rate = f"{self._rate:,.1f}/s" if self._rate else "starting"
        left = ""
        if self._rate and self.total is not None:
            left = f"{span((self.total - self.done) / self._rate)} left"
        told = (f"{self.what} {self.done:,}{of} {self.unit}", rate, self.note, left)
        return "  ".join(part for part in told if part)


class Screen:
    """The terminal: messages, and one meter at a time. If quiet, it shows nothing."""

    def __init__(self, *, quiet: bool = False, stderr: bool = False) -> None:
        self._console = Console(highlight=False, soft_wrap=True, quiet=quiet, stderr=stderr)

    def say(self, text: str) -> None:
        """Print a message. A progress bar stays below it."""
        self._console.print(text, markup=False)

    def note(self, text: str) -> None:
        """Print a message unless it is empty."""
        if text:
            self.say(text)

    @contextmanager
    def meter(
        self, what: str, *, total: int | None, unit: str = "steps", done: int = 0
    ) -> Iterator[Meter]:
        """A meter that is shown as it advances."""
        if not self._console.is_terminal:
            yield Meter(what, total, unit, done, shown=self._plain())
            return
        columns = BarColumn(), TextColumn("{task.description}", markup=False)
        with Progress(*columns, console=self._console, transient=True) as progress:
            bar = progress.add_task(what, total=total, completed=done)

            def show(meter: Meter) -> None:
                progress.update(bar, completed=meter.done, description=str(meter))

            yield Meter(what, total, unit, done, shown=show)

    def _plain(self) -> Callable[[Meter], None]:
        last = float("-inf")

        def show(meter: Meter) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _PLAIN_EVERY or meter.done == meter.total:
                last = now
                self.say(str(meter))

        return show
