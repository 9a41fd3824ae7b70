"""Runs the code of a page as written: every block, in order, in a folder of its own.

What a fence says decides: pycon is a session with its output, python a script, sh a shell's
commands. A block with title="name" is a file of that name. The blocks of a page share their names.
text, json and console are shown alone; console is for what cannot run here.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
RUN = {"pycon", "python", "sh"}
SHOWN = {"text", "json", "console"}
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>.*)$")


class Block(NamedTuple):
    """A fenced block: its language, the file that it is (or ""), its code and where it begins."""

    language: str
    title: str
    code: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, those in lists, tabs and admonitions too."""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        opened = _FENCE.match(line)
        if opened is None:
            continue
        held: list[str] = []
        for _, inner in lines:
            if inner.strip() == opened["fence"]:
                break
            held.append(inner)
        language, _, rest = opened["info"].strip().partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        code = textwrap.dedent("\n".join(held)) + "\n"
        yield Block(language, title[1] if title else "", code, number)


def names_of(text: str) -> dict[str, int]:
    """How many blocks of each language a page has."""
    count: dict[str, int] = {}
    for block in blocks(text):
        count[block.language] = count.get(block.language, 0) + 1
    return count


def run_page(path: Path, folder: Path) -> int:
    """Run a page's blocks with `folder` as working directory: how many there were.

    Raises:
        AssertionError: a block failed, or printed something else.
    """
    names: dict[str, Any] = {"__name__": "__page__"}
    count = 0
    before = os.getcwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    known = set(sys.modules)
    try:
        for block in blocks(path.read_text()):
            if block.title:
                Path(block.title).parent.mkdir(parents=True, exist_ok=True)
                Path(block.title).write_text(block.code)
            elif block.language in RUN:
                _run(block, names, path)
                count += 1
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))
        for module in set(sys.modules) - known:  # another page has its own `mine`
            if str(getattr(sys.modules[module], "__file__", "")).startswith(str(folder)):
                del sys.modules[module]
    return count


def _run(block: Block, names: dict[str, Any], path: Path) -> None:
    where = f"{path.relative_to(ROOT)}, line {block.line}"
    if block.language == "pycon":
        test = doctest.DocTestParser().get_doctest(block.code, names, where, str(path), block.line)
        test.globs = names  # the parser copies them
        told: list[str] = []
        runner = doctest.DocTestRunner(optionflags=OPTIONS)
        assert test.examples, f"{where}: no prompt in it"
        runner.run(test, out=told.append, clear_globs=False)
        assert not runner.failures, "".join(told)
    elif block.language == "python":
        exec(compile(block.code, where, "exec"), names)
    else:
        done = _shell(block.code)
        assert done.returncode == 0, f"{where}:\n{block.code}\n{done.stdout}\n{done.stderr}"


def _shell(code: str) -> subprocess.CompletedProcess[str]:
    # `python` and the packages of this interpreter, whatever a shell would find
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    roots = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join(roots)}
    command = ["bash", "-euo", "pipefail", "-c", code]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


if __name__ == "__main__":  # a page in an interpreter of its own: python -m tests.docs.blocks PAGE
    with tempfile.TemporaryDirectory() as made:
        print(run_page(ROOT / sys.argv[1], Path(made)), "blocks ran")
