"""The page of a run in a real browser: it draws, obeys keys and clicks, and shows text as text."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader
from pipeline.__main__ import main
from pipeline.debug.browse import Browser
from pipeline.debug.journal import Journal, Run
from pipeline.debug.report import report
from tests.tools.webdriver import Page, chromium

pytest.importorskip("bokeh")

EVIL = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\x1b[2J"
RIGHT, LEFT = "\ue014", "\ue012"


def _row(record: dict[str, Any]) -> dict[str, Any]:
    n = record["id"]
    return {"id": n, "picture": np.full((8, 8, 3), n % 256, np.uint8)}


def dataset() -> Dataset:
    """Records whose texts would take a page over, if they could."""
    records = [{"id": i, "text": f"record {i} {EVIL}"} for i in range(400)]
    return Dataset(records, seed=1).shuffle().map(_row).repeat()


def _train(folder: Path, *, seed: int = 0) -> Run:
    rng = np.random.default_rng(seed)
    loader = Loader(dataset(), 4)
    with Journal(folder, loader) as journal:
        for step in range(120):
            if step == 80:
                loader.skip(range(80, 90))
            next(loader)
            loss = 3 + rng.normal(0, 0.02) + 4 * (step == 60)
            journal.log(loss=loss, grad_norm=rng.normal(1, 0.05))
            if step == 50:
                with journal.saving():
                    pass
    return Run(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return _train(tmp_path_factory.mktemp("runs") / "evil<b>run")


@pytest.fixture(scope="module")
def html(run: Run) -> str:
    return report([run], dataset())


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium() as found:
        yield found


# ---- without a browser


def test_a_page_is_one_small_file_that_asks_nothing_of_a_network(html: str) -> None:
    assert len(html.encode()) < 3_000_000
    own = html[: html.index('<script type="application/json"')]
    assert "http" not in own.replace("http-equiv", "")
    assert "default-src &#x27;none&#x27;; script-src &#x27;sha256-" in own
    assert "onerror='" not in html.split('id="data">')[0]
    assert "</script><script>window" not in html


def test_what_a_page_embeds_is_told_and_can_be_left_out(run: Run, html: str) -> None:
    assert "holds the records&#x27; texts of 13 steps" in html
    without = report([run], dataset(), records=False)
    assert "window.hacked" not in without
    assert "was made with --no-records" in without
    assert "no dataset was given" in report([run])


def test_the_command_writes_a_page_of_two_runs(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = _train(tmp_path / "other", seed=1)
    file = tmp_path / "both.html"
    words = ["report", str(run.folder), str(other.folder), "-o", str(file), "--json"]
    assert main([*words, "--data", "tests.debug.test_pages:dataset"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(file), "bytes": file.stat().st_size}
    assert 'class="key key1"></span>other' in file.read_text()


def test_a_run_of_nothing_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").touch()
    assert "no step yet" in report([Run(tmp_path)])


# ---- in a browser


@pytest.fixture
def opened(page: Page, html: str, tmp_path: Path) -> Page:
    file = tmp_path / "report.html"
    file.write_text(html, encoding="utf-8")
    page.screen(1100, 1000)
    page.errors()
    page.open(file.as_uri())
    page.wait("document.body.dataset.drawn === 'true'")
    return page


def _shown(page: Page) -> int:
    return int(page.script("return document.body.dataset.step"))


@pytest.mark.long
@pytest.mark.slow
def test_a_report_in_a_browser(opened: Page) -> None:
    page = opened
    assert _shown(page) == 60  # the spike
    assert page.script("return window.hacked") is None
    assert page.script("return document.querySelectorAll('#rows img').length") == 4
    text = page.script("return document.getElementById('rows').innerText")
    assert "</script><script>window.hacked=1</script><img src=x" in text
    page.click("[data-step='0']")
    page.wait("document.body.dataset.step === '0'")
    page.press(RIGHT)
    page.wait("document.body.dataset.step === '10'")
    page.press(LEFT)
    page.wait("document.body.dataset.step === '0'")
    # a click into the curves goes to the nearest step that the page has
    x, y = page.script(
        "window.scrollTo(0, 0);"
        "const box = document.getElementById('curves').getBoundingClientRect();"
        "return [box.left + 64 + (box.width - 94) / 2, box.top + 90]"
    )
    page.click_at(int(x), int(y))
    page.wait("Math.abs(Number(document.body.dataset.step) - 60) <= 6")
    assert page.errors() == []
    loaded = page.script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []


_CONTRAST = """
const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
  .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const found = rgb(getComputedStyle(e).backgroundColor);
    if (found.length === 3 || found[3] > 0) return found;
  }
  return [255, 255, 255];
};
const ratios = [...document.querySelectorAll('h1, h2, h3, p, td, th, button, pre, summary, label')]
  .filter((e) => e.innerText && e.offsetParent)
  .map((e) => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
return [ratios.length, Math.min(...ratios)];
"""


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_a_report_is_readable_on_a_phone_and_in_the_dark(opened: Page, dark: bool) -> None:
    page = opened
    page.screen(390, 844, dark=dark)
    page.wait("innerWidth === 390")
    assert page.script("return document.documentElement.scrollWidth") <= 390
    looked_at, least = page.script(_CONTRAST)
    assert looked_at > 20
    assert least >= 4.5  # WCAG 2.2, 1.4.3
    paper = page.script("return getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
    assert page.errors() == []


# ---- live


@pytest.fixture
def browser(run: Run) -> Iterator[Browser]:
    with Browser(run, dataset()) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def _get(browser: Browser, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", browser.port)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def test_only_who_has_the_token_sees_a_run(browser: Browser) -> None:
    cookie = {"Cookie": f"lockstep={browser.token}"}
    for path in ("/", "/step/3", "/find?record=1"):
        assert _get(browser, path)[0] == 403
        assert _get(browser, path, Cookie="lockstep=guess")[0] == 403
        assert _get(browser, path, Host="evil.example", **cookie)[0] == 403
        assert _get(browser, path, **cookie)[0] == 200
    assert _get(browser, "/?token=guess")[0] == 403
    status, headers, _ = _get(browser, f"/?token={browser.token}")
    assert (status, headers["Location"]) == (303, "/")
    assert headers["Set-Cookie"].endswith("HttpOnly; SameSite=Strict; Path=/")
    assert _get(browser, "/nowhere", **cookie)[0] == 404
    assert _get(browser, "/step/x", **cookie)[0] == 404
    assert "frame-ancestors 'none'" in _get(browser, "/", **cookie)[1]["Content-Security-Policy"]
    assert b"no line for step 900" in _get(browser, "/step/900", **cookie)[2]
    assert browser.ssh.startswith(f"ssh -L {browser.port}:127.0.0.1:{browser.port} ")


@pytest.mark.long
@pytest.mark.slow
def test_any_step_is_shown_live(browser: Browser, page: Page) -> None:
    page.screen(1100, 1000)
    page.errors()
    page.open(browser.url)
    page.wait("document.body.dataset.drawn === 'true'")
    page.wait("document.body.dataset.step === '60'")
    assert "token" not in page.script("return location.href")
    page.press(RIGHT)
    page.wait("document.body.dataset.step === '61'")
    page.script(
        "const n = document.getElementById('number'); n.value = 37;"
        "n.dispatchEvent(new Event('input'));"
    )
    page.wait("document.body.dataset.step === '37'")
    page.click("#rows .document button")
    page.wait("document.querySelector('#rows .document .steps button')")
    record = int(page.script("return document.querySelector('#rows pre').innerText").split()[1])
    steps = "return [...document.querySelectorAll('#rows .document .steps button')]"
    found = page.script(steps + ".map(b => Number(b.innerText))")
    loader = Loader(dataset(), 4)
    drawn = loader.find(record, within=range(130))
    assert found == [s if s < 80 else s - 10 for s in drawn if not 80 <= s < 90]
    assert page.script("return window.hacked") is None
    assert page.errors() == []


class _Huge:
    # as many records as nobody stores
    def __len__(self) -> int:
        return 10**9

    def read(self, indices: Any) -> list[bytes]:
        return [f"record {i}".encode() for i in indices]


def test_a_step_of_a_run_over_a_billion_rows(tmp_path: Path) -> None:
    huge = Dataset(_Huge(), seed=1).shuffle().repeat()
    loader = Loader(huge, 8)
    loader.seek(100_000_000)
    with Journal(tmp_path, loader) as journal:
        next(loader)
        with pytest.warns(UserWarning, match="have no line"):
            journal.log(loss=1.0)
    with Browser(Run(tmp_path), huge) as found:
        found.step(100_000_000)
        before = time.process_time()
        about = found.step(100_000_000)
        assert time.process_time() - before < 0.3
        assert len(about["rows"]) == 8
        [step] = found.find("", about["rows"][0]["records"][0]["index"])["steps"]
        assert step == 100_000_000
