"""Shows the progress of long work on stderr: a bar on a terminal, else lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

Advance = Callable[[int], None]
_PLAIN_EVERY = 10.0  # seconds between lines where there is no terminal


@contextmanager
def progress(what: str, total: int, unit: str, *, done: int = 0) -> Generator[Advance]:
    """Show how far some work is; yields a function to call with the amount done so far.

    Args:
        what: the name of the work.
        total: the amount of work.
        unit: what is counted, such as "records".
        done: the amount done before, which does not count towards the rate.
    """
    if not sys.stderr.isatty():
        yield _lines(what, total, unit, done)
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:  # without rich, lines will do
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
