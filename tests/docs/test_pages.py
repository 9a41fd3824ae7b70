"""Every block of README and of docs/ runs as written, and says what runs and what is only shown."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, RUN, SHOWN, blocks, names_of, run_page

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md") if (ROOT / name).exists()),
    *sorted((ROOT / "docs").rglob("*.md")),
]
NEEDS = {
    "README.md": ["torch"],
    "docs/roads/torch.md": ["torch"],
    "docs/roads/frameworks.md": ["torch", "accelerate"],
    "docs/library.md": ["jax", "torch"],
    "docs/migrate/grain.md": ["grain"],
    "docs/migrate/torch.md": ["torch"],
    "docs/migrate/huggingface.md": ["datasets"],
    "docs/migrate/mosaicml.md": ["streaming"],
    "docs/migrate/tfdata.md": ["tensorflow"],
    "docs/migrate/webdataset.md": ["webdataset"],
}
# what needs a network, a cluster or minutes is shown as ```console, and begins like one of these
NOT_RUN = (
    "pip install ",
    "git clone ",
    "make ",
    "torchrun ",
    "python -m pipeline doctor",
    "python -m pipeline report",
    "python -m pipeline browse",
    "cd ",
)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _marked(path: Path):
    count = names_of(path.read_text())
    slow = count.get("sh", 0) or path.parent.name == "migrate"  # new interpreters, large imports
    return pytest.param(path, id=_name(path), marks=[pytest.mark.long] if slow else [])


@pytest.fixture
def _log_as_before() -> Iterator[None]:
    logger = logging.getLogger("pipeline")
    before = logger.level
    yield
    logger.setLevel(before)  # a page may silence it


@pytest.mark.usefixtures("_log_as_before")
@pytest.mark.parametrize("path", [_marked(p) for p in PAGES if set(names_of(p.read_text())) & RUN])
@pytest.mark.filterwarnings("default::DeprecationWarning", "default::FutureWarning")
def test_a_page_s_blocks_run(path: Path, tmp_path: Path) -> None:
    missing = [name for name in NEEDS.get(_name(path), []) if find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    if path.parent.name == "migrate":  # other libraries leave warnings, files and processes behind
        command = [sys.executable, "-m", "tests.docs.blocks", _name(path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        assert "blocks ran" in done.stdout
    else:
        assert run_page(path, tmp_path)


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_a_page_s_blocks_say_what_they_are(path: Path) -> None:
    for block in blocks(path.read_text()):
        assert block.title or block.language in RUN | SHOWN, block
        if block.language == "console":
            lines = [line.removeprefix("$ ") for line in block.code.splitlines()]
            commands = [line for line in lines if line and line[0] not in "# "]
            assert all(line.startswith(NOT_RUN) for line in commands), block


def test_a_block_that_fails_is_told(tmp_path: Path) -> None:
    page = ROOT / "docs" / "index.md"

    class Made(type(page)):
        def read_text(self, *_: object, **__: object) -> str:
            return "1. x\n\n    ```pycon\n    >>> 1 + 1\n    3\n    ```\n"

    with pytest.raises(AssertionError, match="Got:\n    2"):
        run_page(Made(page), tmp_path)
