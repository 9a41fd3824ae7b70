"""What people see of long work: a bar with rate and time left on a terminal, else lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

Advance = Callable[[int], None]
_PLAIN_EVERY = 10.0  # seconds between lines where there is no terminal


@contextmanager
def progress(what: str, total: int, unit: str, *, done: int = 0) -> Generator[Advance]:
    """Show how far some work is, on stderr; what it gives is called with how much is done so far.

    Args:
        what: the work's name.
        total: how much there is.
        unit: of what.
        done: how much was there at the start: it counts as done, not as speed.
    """
    if not sys.stderr.isatty():
        yield _lines(what, total, unit, done)
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:  # the work is worth more than its bar
        yield _lines(what, total, unit, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,} " + unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done, rate="")

        def show(now: int) -> None:
            bar.update(task, completed=now, rate=_rate(now - done, started))

        yield show


def _lines(what: str, total: int, unit: str, done: int) -> Advance:
    started = last = time.monotonic()

    def show(now: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _PLAIN_EVERY:
            last = time.monotonic()
            rate = _rate(now - done, started)
            print(f"{what}: {now:,}/{total:,} {unit}, {rate}", file=sys.stderr)

    return show


def _rate(n: int, started: float) -> str:
    return f"{n / max(1e-9, time.monotonic() - started):,.0f}/s"
