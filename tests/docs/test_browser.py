"""The built pages in a real browser: whole on a phone, light and dark, and found by questions."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import ROOT

webdriver: Any = pytest.importorskip("tests.tools.webdriver")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        find_spec("mkdocs") is None or find_spec("mkdocstrings") is None,
        reason="needs the extra: pip install 'lockstep-data[docs]'",
    ),
]
QUESTIONS = {
    "resume on fewer hosts": "how/resume.html",
    "change the batch size": "how/resume.html",
    "save state beside the model": "how/resume.html",
    "my loss spiked": "how/spikes.html",
    "leave a record out": "how/spikes.html",
    "was this document trained on": "how/journal.html",
    "change the mix": "how/mix.html",
    "find a slow stage": "how/speed.html",
    "shuffle Parquet": "how/speed.html",
    "tokenize once": "how/tokens.html",
    "split by hash": "how/splits.html",
    "k folds": "how/splits.html",
    "stratify": "how/splits.html",
    "oversample": "how/splits.html",
    "curriculum": "how/splits.html",
    "windows of a time series": "how/windows.html",
    "preference pairs": "how/chats.html",
    "loss masks of chats": "how/chats.html",
    "read from a bucket": "how/files.html",
    "write my own source": "how/files.html",
    "convert files": "how/files.html",
    "skip bad records": "how/faults.html",
    "how many workers threads or processes": "performance.html",
    "CollateError": "errors.html",
    "migrate from grain": "migrate/grain.html",
}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(site)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return site


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(built))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with webdriver.chromium() as found:
        yield found


@pytest.mark.parametrize("dark", [False, True])
def test_pages_are_whole_on_a_phone(page: Any, built: Path, address: str, dark: bool) -> None:
    page.screen(390, 844, dark=dark)
    page.open(f"{address}/index.html")
    page.script("localStorage.clear()")  # which of the two was shown last
    for path in sorted(built.rglob("*.html"))[:: 6 if dark else 1]:
        page.open(f"{address}/{path.relative_to(built).as_posix()}")
        too_wide = "return document.documentElement.scrollWidth - innerWidth"
        assert page.script(too_wide) <= 0, path
        missing = "return [...document.images].filter(i => i.complete && !i.naturalWidth).length"
        assert page.script(missing) == 0, path
    scheme = "return document.body.getAttribute('data-md-color-scheme')"
    assert page.script(scheme) == ("slate" if dark else "default")
    assert not page.errors()


def test_questions_find_their_page(page: Any, address: str) -> None:
    page.screen(1280, 900)
    page.open(f"{address}/index.html")
    wrong: dict[str, list[str]] = {}
    for question, answer in QUESTIONS.items():
        ask = (
            "const box = document.querySelector('.md-search__input');"
            "box.focus(); box.value = arguments[0];"
            "box.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true}))"
        )
        shown = "[...document.querySelectorAll('.md-search-result__item > a')]"
        page.script(ask, "")
        page.wait(f"!{shown}.length")  # what the last question found is gone
        page.script(ask, question)
        page.wait(f"{shown}.length")
        hrefs = f"return {shown}.slice(0, 3).map(a => a.getAttribute('href'))"
        first = page.script(hrefs)
        if not any(answer in href for href in first):
            wrong[question] = first
    assert not wrong
