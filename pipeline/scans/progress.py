"""What people see of a long scan: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def progress(name: str, total: int, done: int, show: bool) -> Generator[Callable[[int], None]]:
    """A function to call with how many more records are done; the bar starts at `done`."""
    if not show or not sys.stderr.isatty():
        yield lambda count: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Left
    except ImportError:  # the scan is worth more than its bar
        yield lambda count: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Left()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"scan {name}", total=total, completed=done)
        yield lambda count: bar.advance(task, count)
