"""What the pages take from the code is whole: errors, names, tests, links, notebooks, llms.txt."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pipeline
from pipeline import errors
from tests.docs.blocks import ROOT

DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def _generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


generate: Any = _generate()


def test_the_index_of_errors_is_whole() -> None:
    page = generate.errors_page()
    public = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.PipelineError)
    ]
    for kind in public:
        section = page.partition(f"\n## {kind.__name__}\n")[2].partition("\n## ")[0]
        assert "**Cause:**" in section, kind
        assert "**Cure:**" in section or kind is errors.PipelineError, kind
        assert f"{kind.__name__}:" in section or "`" in section or len(section) > 80, kind
    assert len(re.findall(r"^## ", page, flags=re.M)) == len(set(re.findall(r"^## .+", page, re.M)))


def test_examples_of_errors_are_of_classes_that_exist() -> None:
    told = set(re.findall(r"^## (\w+)", (DOCS / "fragments" / "errors.md").read_text(), flags=re.M))
    assert len(told) > 20
    assert told <= {kind.name for kind in generate.kinds()}


def test_every_message_is_in_the_index() -> None:
    page = generate.errors_page()
    listed = re.findall(r"^    - (.+) <small>", page, flags=re.M)
    said = generate.messages("pipeline", "harness")
    assert len(listed) == len(said) > 300
    assert any("is the global batch; it does not split over hosts=" in text for text in listed)


def test_messages_are_found_in_each_form_they_are_written_in() -> None:
    import ast

    code = 'E("a" f"{b} c" if d else "e" + f"{g!r}")'
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert generate._texts(call.args[0]) == ["a{b} c", "e{g}"]


def test_every_public_name_has_its_reference() -> None:
    pages = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    documented = set(re.findall(r"^::: pipeline\.(\w+)$", pages, flags=re.M))
    assert documented >= set(pipeline.__all__) - {"errors"}


def test_every_test_that_a_page_names_exists() -> None:
    named = set[tuple[str, str]]()
    for path in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        named |= set(re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", path.read_text()))
    assert len(named) > 15
    for file, name in named:
        assert (ROOT / file).exists(), file
        assert f"def {name}" in (ROOT / file).read_text(), (file, name)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "ARCHITECTURE.md"])
def test_links_of_pages_outside_the_site_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (ROOT / target).exists(), f"{name} links {target}"


def test_files_for_assistants_are_up_to_date() -> None:
    why = "run: python docs/generate.py"
    assert (ROOT / "llms.txt").read_text() == generate.llms_txt(), why
    assert (ROOT / "SKILL.md").read_text() == generate.skill_md(), why


def test_pictures_are_scalable_and_named() -> None:
    pictures = list((DOCS / "pictures").iterdir())
    assert len(pictures) > 4
    for picture in pictures:
        text = picture.read_text()
        assert text.startswith("<svg"), picture
        assert "<title>" in text, picture
        assert "<script" not in text, picture
        assert "href" not in text, picture


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_has_its_pictures(path: Path) -> None:
    page = generate.notebook_page(path)
    assert page.startswith("# ")
    assert "<svg" in page
    assert "Traceback" not in page


@pytest.mark.long
@pytest.mark.skipif(
    find_spec("nbclient") is None or find_spec("matplotlib") is None,
    reason="needs the extra: pip install 'lockstep-data[docs]'",
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_and_prints_what_it_shows(path: Path, tmp_path: Path) -> None:
    nbformat = importlib.import_module("nbformat")
    client = importlib.import_module("nbclient").NotebookClient
    book = nbformat.read(path, as_version=4)
    before = [_texts(cell) for cell in json.loads(path.read_text())["cells"]]
    client(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [_texts(cell) for cell in book.cells] == before


def _texts(cell: Any) -> str:
    found = [
        o.get("text", o.get("data", {}).get("text/plain", "")) for o in cell.get("outputs", [])
    ]
    shown = ["".join(text) for text in found]
    return "".join(text for text in shown if not text.startswith("<Figure"))


@pytest.mark.long
@pytest.mark.skipif(
    find_spec("mkdocs") is None or find_spec("mkdocstrings") is None,
    reason="needs the extra: pip install 'lockstep-data[docs]'",
)
def test_the_pages_build_and_ask_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr  # strict: a lost link is an error
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        asked = re.findall(
            r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text()
        )
        assert not [url for url in asked if "canonical" not in url], page
    assert (tmp_path / "llms.txt").exists()
    assert (tmp_path / "SKILL.md").exists()
