"""ARCHITECTURE.md names files that exist, every room, and a way of at most twelve stops."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()


def named() -> set[str]:
    """The paths that the page names."""
    known = re.findall(r"`([\w./]+)`", TEXT)
    return {path for path in known if path.endswith((".py", "/"))} | set(
        re.findall(r"python (\S+\.py)", TEXT)
    )


def test_every_file_it_names_exists() -> None:
    assert len(named()) > 40
    assert not [path for path in sorted(named()) if not (ROOT / path).exists()]


def test_every_room_is_named() -> None:
    rooms = {
        f"pipeline/{p.name}/" for p in (ROOT / "pipeline").iterdir() if (p / "__init__.py").exists()
    }
    assert not rooms - named()


def test_a_batch_has_at_most_twelve_stops_and_the_page_two_pages() -> None:
    stops = re.findall(r"^(\d+)\. ", TEXT, flags=re.M)
    assert [int(stop) for stop in stops] == list(range(1, len(stops) + 1))
    assert len(stops) <= 12
    assert len(TEXT.splitlines()) <= 120


def test_the_trainer_does_not_grow() -> None:
    texts = {path.stem: path.read_text() for path in (ROOT / "harness").glob("*.py")}
    assert len(texts["train"].splitlines()) < 300
    assert sum(len(text.splitlines()) for text in texts.values()) < 8_200
    found = [node for text in texts.values() for node in ast.walk(ast.parse(text))]
    functions = [f for f in found if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 60]
    assert not long
