"""Watching a loader: rows a second, how long the loop stalls, and what limits it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from pipeline.errors import PipelineError
from pipeline.loader import Loader
from pipeline.workers.stats import Stats

_PLAIN_EVERY, _TERMINAL_EVERY = 10.0, 1.0  # seconds


class Reading(NamedTuple):
    """What happened between two readings of a loader's stats.

    Attributes:
        batches: how many were handed out.
        rate: rows a second.
        stall: the share of the time that the loop waited for data.
        limit: the stage that took the most time, or "the loop" if data is fast enough.
        ready: results that wait to be fetched.
    """

    batches: int
    rate: float
    stall: float
    limit: str
    ready: int

    def __str__(self) -> str:
        if not self.batches:
            return "no batch since the last look"
        rows = f"{self.rate:,.0f} rows/s, stalled {self.stall:.0%}"
        return f"{rows}, limit: {self.limit}, {self.ready} ready"


def reading(before: Stats | None, now: Stats) -> Reading:
    """What a loader did since its stats were `before`; None for since its first batch.

    >>> from pipeline import Dataset
    >>> loader = Loader(Dataset(range(9)).map(lambda x: sum(range(10**6)), name="sum"), 3)
    >>> _ = next(loader), next(loader)
    >>> found = reading(None, loader.stats())
    >>> found.batches, found.limit
    (2, "stage 0: map 'sum'")
    """
    batches, rows, seconds, wait = (
        getattr(now, name) - (getattr(before, name) if before else 0)
        for name in ("batches", "rows", "seconds", "wait")
    )
    known = {s.name: s.seconds for s in before.stages} if before else {}
    stages = (replace(s, seconds=s.seconds - known.get(s.name, 0.0)) for s in now.stages)
    first = 0.0 if before and before.batches else now.first
    since = replace(now, stages=tuple(stages), seconds=seconds, wait=wait, first=first)
    stall = min(1.0, wait / seconds) if seconds else 0.0
    return Reading(batches, rows / seconds if seconds else 0.0, stall, since.limit, now.ready)


class Live:
    """Shows a loader's readings until it is closed; see `live`."""

    def __init__(self, loader: Loader, every: float | None, metrics: int | None) -> None:
        self._loader, self._before = loader, None
        self._screen = _screen()
        usual = _PLAIN_EVERY if self._screen is None else _TERMINAL_EVERY
        self._every, self._metrics = usual if every is None else every, metrics
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Live:
        # anew each time: it may be used for one epoch after the other
        self._over, self._threads = threading.Event(), [threading.Thread(target=self._run)]
        if self._metrics is not None:
            self._server = _server(self._metrics, self._loader)
            self._threads.append(threading.Thread(target=self._server.serve_forever))
        if self._screen is not None:
            self._screen.start()
        for thread in self._threads:
            thread.daemon = True
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        for thread in self._threads:
            thread.join()
        self.look()
        if self._screen is not None:
            self._screen.stop()

    def __iter__(self) -> Iterator[Any]:
        with self:
            yield from self._loader

    @property
    def port(self) -> int | None:
        """The port of the metrics, once it is entered; None without metrics."""
        return self._server.server_address[1] if self._server is not None else None

    def look(self) -> Reading:
        """The reading since the last call; also shows it."""
        now = self._loader.stats()
        found = reading(self._before, now)
        self._before: Stats | None = now
        text = f"data: batch {now.batches:,}: {found}"
        if self._screen is None:
            print(text, file=sys.stderr)
        else:
            from rich.text import Text

            self._screen.update(Text(text))  # Text, since names may look like markup
        return found

    def _run(self) -> None:
        while not self._over.wait(self._every):
            self.look()


def live(loader: Loader, *, every: float | None = None, metrics: int | None = None) -> Live:
    """Show rows a second, the loop's stall and the limiting stage while a loader is used.

    On a terminal, if rich is installed, it is one line that is updated; else it is a line on stderr
    from time to time. Use it around the loop, `with live(loader): …`, or in it, `for batch in
    live(loader): …`.

    Args:
        loader: the loader that is used.
        every: seconds between two readings; by default 1 on a terminal, 10 elsewhere.
        metrics: a port of 127.0.0.1 at which Prometheus can read the stats (/metrics); 0 for a free
            one, which is then `.port`.

    Raises:
        PipelineError: the port cannot be had.

    >>> from pipeline import Dataset
    >>> [batch.tolist() for batch in live(Loader(Dataset(range(4)), 2), every=60)]
    [[0, 1], [2, 3]]
    """
    return Live(loader, every, metrics)


def _screen() -> Any:
    # a line that is overwritten; None without a terminal
    if not sys.stderr.isatty():
        return None
    try:
        from rich.console import Console
        from rich.live import Live as Screen
    except ImportError:
        return None
    return Screen(console=Console(stderr=True), refresh_per_second=4)


def _server(port: int, loader: Loader) -> ThreadingHTTPServer:
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), _pages(loader))
    except (OSError, OverflowError) as e:
        raise PipelineError(
            f"metrics={port}: {e}. Each process needs a port of its own: metrics=0 takes a free "
            "one, which is then `.port`."
        ) from e


def _pages(loader: Loader) -> type[BaseHTTPRequestHandler]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404)
                return
            body = loader.stats().prometheus().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: nobody wants a line for each request."""

    return Page
