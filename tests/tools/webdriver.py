"""A headless Chromium, told what to do over WebDriver (W3C): as much of it as pages' tests need."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")


class Page:
    """One window of a browser."""

    def __init__(self, base: str) -> None:
        self._base = base
        capabilities = {
            "goog:chromeOptions": {"args": [*_FLAGS, "--window-size=1100,1000"]},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        answer = self._ask("session", {"capabilities": {"alwaysMatch": capabilities}})
        self._base = f"{base}/session/{answer['sessionId']}"

    def _ask(self, path: str, body: Any = None, method: str = "POST") -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(f"{self._base}/{path}".rstrip("/"), data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        self._ask("url", {"url": url})

    def script(self, code: str, *args: Any) -> Any:
        """What `code`, the body of a function, returns."""
        return self._ask("execute/sync", {"script": code, "args": list(args)})

    def wait(self, condition: str) -> None:
        """Until an expression holds, at most 20 s."""
        code = (
            "const [done] = [arguments[arguments.length - 1]]; const until = Date.now() + 20000;"
            f"(function look() {{ if ({condition}) done(true);"
            "else if (Date.now() > until) done(document.body.innerText.slice(0, 2000));"
            "else setTimeout(look, 20); })();"
        )
        found = self._ask("execute/async", {"script": code, "args": []})
        assert found is True, f"never: {condition}; the page says: {found}"

    def click(self, css: str) -> None:
        found = self._ask("element", {"using": "css selector", "value": css})
        self._ask(f"element/{next(iter(found.values()))}/click")

    def click_at(self, x: int, y: int) -> None:
        """Press and release the mouse at a point of the window."""
        move = {"type": "pointerMove", "x": x, "y": y, "duration": 0}
        press = [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        actions = {"type": "pointer", "id": "mouse", "actions": [move, *press]}
        self._ask("actions", {"actions": [actions]})

    def press(self, key: str) -> None:
        """Press a key; arrows are \\ue012 to \\ue015."""
        keys = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self._ask("actions", {"actions": [{"type": "key", "id": "keys", "actions": keys}]})

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        """Make it the screen of a phone, or a dark one."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", {"features": [scheme]})

    def _devtools(self, command: str, params: Any) -> Any:
        return self._ask("goog/cdp/execute", {"cmd": command, "params": params})

    def errors(self) -> list[str]:
        """What the console has said since the last call that was more than a warning."""
        entries = self._ask("se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def screenshot(self) -> str:
        """Of the window: a PNG file in base64."""
        return self._ask("screenshot", method="GET")

    def close(self) -> None:
        self._ask("", method="DELETE")


@contextmanager
def chromium() -> Iterator[Page]:
    """A page in a browser of its own; the test is skipped where none is installed."""
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [driver, "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"TMPDIR": folder},  # Chromium leaves its profile there
        )
        try:
            assert process.stdout is not None
            started = next(line for line in process.stdout if "started successfully on" in line)
            port = started.split("port ")[1].split(".")[0]
            page = Page(f"http://127.0.0.1:{port}")
            try:
                yield page
            finally:
                page.close()
        finally:
            process.terminate()
            process.communicate()
