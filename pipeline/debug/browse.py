"""A local server for a run's page. It makes the rows of a step when the step is looked at."""

from __future__ import annotations

import hmac
import http.server
import json
import secrets
import socket
import threading
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pipeline.dataset import Dataset
from pipeline.debug.find import steps_of
from pipeline.debug.journal.reading import Run
from pipeline.debug.report.curves import curves_of
from pipeline.debug.report.page import page, policy, scripts
from pipeline.debug.report.report import step_of
from pipeline.debug.spikes import THRESHOLD, WINDOW
from pipeline.errors import PipelineError

HOST = "127.0.0.1"
COUNTED = 2000  # steps that are searched for a record if they have to be evaluated
READ = 100_000  # ledger lines that the curves are made from, which takes a second or two
_COOKIE = "lockstep"


class Browser(http.server.ThreadingHTTPServer):
    """Serves a run's page on this machine, to whoever has the token.

    Args:
        run: the run.
        dataset: of the run; None to show only curves.
        port: 0 for any free port.
        window, threshold: of spikes.

    Attributes:
        url: the address to open. It contains the token, which the first response moves into a
            cookie.

    Raises:
        MissingExtraError: Bokeh is not installed.
        OSError: the port is in use.
    """

    daemon_threads = True

    def __init__(
        self,
        run: Run,
        dataset: Dataset | None,
        *,
        port: int = 0,
        window: int = WINDOW,
        threshold: float = THRESHOLD,
    ) -> None:
        self.run, self.dataset = run, dataset
        self._window, self._threshold = window, threshold
        self.scripts = scripts()
        self.token = secrets.token_urlsafe(24)
        self.lock = threading.Lock()  # a loader answers one request at a time
        super().__init__((HOST, port), _Handler)
        self.port = self.server_address[1]
        self.url = f"http://{HOST}:{self.port}/?token={self.token}"

    @property
    def ssh(self) -> str:
        """The command that forwards the page to another machine."""
        return f"ssh -L {self.port}:{HOST}:{self.port} {socket.gethostname()}"

    def html(self) -> str:
        """The page, with current curves."""
        with self.lock:
            self.run = Run(self.run.folder)  # reopened, since the run may have gone on
            curves = curves_of(self.run, window=self._window, threshold=self._threshold, most=READ)
        note = "Any step's rows are made again as you look at it."
        if self.dataset is None:
            note = "No dataset was given (--data module:name): only what steps told is shown."
        return page([curves], folder=str(self.run.folder), embedded={}, note=note, live=True)

    def step(self, number: int) -> dict[str, Any]:
        """The ledger line and rows of a step, or {"error": …}."""
        with self.lock:
            try:
                line = self.run.line(number)
                if self.dataset is None:
                    return {"line": f"loss {line.loss_value:.5g}", "rows": [], "more": ""}
                return step_of(self.run, self.dataset, line)
            except PipelineError as e:
                return {"error": f"{type(e).__name__}: {e}"}

    def find(self, component: str, record: int) -> dict[str, Any]:
        """The steps that contain a record, or {"error": …}."""
        with self.lock:
            try:
                assert self.dataset is not None
                steps, note = self.run.steps, ""
                if self.dataset.counted and len(steps) > COUNTED:
                    steps = range(steps.stop - COUNTED, steps.stop)
                    note = f"of the last {COUNTED:,} steps: python -m pipeline find looks further"
                named = (component, record) if component else record
                found = steps_of(self.run, self.dataset, named, steps)
                return {"steps": found[:500], "note": note}
            except PipelineError as e:
                return {"error": f"{type(e).__name__}: {e}"}


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Browser  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version, sys_version = "lockstep", ""

    def do_GET(self) -> None:
        # another site's host name that resolves to this machine must not read a run (DNS rebinding)
        hosts = {f"{name}:{self.server.port}" for name in (HOST, "localhost")}
        if self.headers.get("Host") not in hosts:
            return self._send(403, "text/plain", f"Host must be {HOST}:{self.server.port}")
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if "token" in query and url.path == "/":
            return self._enter(query["token"][0])
        if not self._known():
            return self._send(403, "text/plain", "open the address that browse printed")
        try:
            return self._answer(url.path, query)
        except (ValueError, KeyError):
            return self._send(404, "text/plain", "there is no such page")

    def _answer(self, path: str, query: dict[str, list[str]]) -> None:
        if path == "/":
            return self._send(200, "text/html; charset=utf-8", self.server.html())
        if path.startswith("/step/"):
            return self._json(self.server.step(int(path.removeprefix("/step/"))))
        if path == "/find":
            component = query.get("component", [""])[0]
            return self._json(self.server.find(component, int(query["record"][0])))
        raise KeyError(path)

    def _known(self) -> bool:
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(_COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value, self.server.token)

    def _enter(self, token: str) -> None:
        # remove the token from the address bar, so that it is in no history or copied address
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            return self._send(403, "text/plain", "the token is not this server's")
        self.send_response(303)
        self.send_header("Location", "/")
        self.send_header("Set-Cookie", f"{_COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _json(self, value: Any) -> None:
        self._send(200, "application/json", json.dumps(value, allow_nan=False))

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy(self.server.scripts, live=True)
            + "; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the terminal shows the address."""
