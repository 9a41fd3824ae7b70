"""The house stands: imports point down only, and importing pipeline pulls in nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = (
    {"errors", "seeds"},
    {"checks"},
    {"tree"},
    {"block"},
    {"types", "meter"},
    {"sources"},
    {"sampling", "transforms"},
    {"nodes"},
    {"picture"},
    {"dataset"},
    {"workers", "checkpoint", "combine"},
    {"provenance", "scan"},
    {"batches"},
    {"loader"},
    {"feed", "debug"},
    {"tools"},
    {"compat", "__init__", "__main__"},
    {"harness"},
    {"examples", "benchmarks", "tests"},
)
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
OPTIONAL = {"jax", "jaxlib", "torch", "orbax", "ray", "flax", "optax", "gcsfs", "rich"}


def _room(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "pipeline":
        return parts[1] if len(parts) > 1 else "__init__"
    return parts[0] if parts[0] in FLOORS[-2] | FLOORS[-1] else None  # not Python's own `types`


def _imports(path: Path) -> list[tuple[str, bool]]:
    """Every imported module of a file, and whether that happens as the file is imported."""
    tree = ast.parse(path.read_text())
    inside = {
        id(n)
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
        for n in ast.walk(f)
    }
    found: list[tuple[str, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(a.name, id(node) not in inside) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module
            found.append((node.module, id(node) not in inside))
            if node.module == "pipeline":
                names = {f"pipeline.{a.name}" for a in node.names}
                found += [(n, id(node) not in inside) for n in names if _room(n) in FLOOR]
    return found


def _files() -> list[Path]:
    return sorted(p for top in ("pipeline", "harness") for p in (ROOT / top).rglob("*.py"))


@pytest.mark.parametrize("path", _files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    relative = path.relative_to(ROOT).with_suffix("")
    own = _room(".".join(relative.parts).removesuffix(".__init__"))
    assert own in FLOOR, f"{path} lives in no room of the house: give it one in FLOORS"
    for module, _ in _imports(path):
        room = _room(module)
        if room is None or room == own:
            continue
        assert FLOOR[room] < FLOOR[own], (
            f"{path} ({own}) imports {module} ({room}) above or beside it"
        )


# what each package may import as it is imported itself; all other optional packages wait inside
AT_ONCE = {"pipeline": set[str](), "harness": {"jax", "jaxlib", "flax", "optax", "orbax", "rich"}}


def _too_early(path: Path) -> set[str]:
    if _room(".".join(path.relative_to(ROOT).parts[:2])) == "compat":
        return set()  # each file there is for one trainer, and nobody else imports it
    may = AT_ONCE[path.relative_to(ROOT).parts[0]]
    early = {module.split(".")[0] for module, at_once in _imports(path) if at_once}
    return early & (OPTIONAL - may)


@pytest.mark.parametrize("path", _files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_optional_packages_are_imported_where_they_are_used(path: Path) -> None:
    assert not _too_early(path)


@pytest.mark.parametrize(("top", "module"), [("pipeline", "jax"), ("harness", "torch")])
def test_an_import_that_is_too_early_is_seen(top: str, module: str) -> None:
    path = ROOT / top / "made_up.py"

    class Made(type(path)):
        def read_text(self, *_: object, **__: object) -> str:
            return f"from {module} import nn\ndef f():\n    import ray\n"

    assert _too_early(Made(path)) == {module}


def test_import_pipeline_pulls_in_nothing_heavy() -> None:
    script = "import pipeline, sys; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {*OPTIONAL, "pyarrow", "fsspec", "array_record", "asyncio.base_events"}
    assert not {m for m in out.stdout.split() if m.split(".")[0] in OPTIONAL or m in heavy}
