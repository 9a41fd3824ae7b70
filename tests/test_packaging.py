"""What is shipped: the command, the wheel and the sdist, each tried as a user would."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import lockstep_data

ROOT = Path(__file__).parents[1]
MINE = """
import numpy as np
from pipeline import Dataset, Loader
dataset = Dataset({"x": np.arange(20)}).map(lambda row: {"x": row["x"] + 1})
def loader():
    return Loader(dataset, 4, workers=1)
"""
# what the console script of an installed package does: our package is on the path, but not first
COMMAND = (
    "import sys; sys.path.append({root!r}); import lockstep_data; "
    "sys.exit(lockstep_data.main(sys.argv[1:]))"
)


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", COMMAND.format(root=str(ROOT)), *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("hidden", [True, False])
def test_the_command_works_whether_or_not_a_folder_hides_the_package(
    tmp_path: Path, hidden: bool
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    if hidden:
        (tmp_path / "pipeline").mkdir()
        (tmp_path / "pipeline" / "__init__.py").write_text("raise RuntimeError('not this one')\n")
    done = run(tmp_path, "inspect", "mine:dataset", "--json")
    assert done.returncode == 0, done.stderr
    assert '"rows": 20' in done.stdout
    told = f"{tmp_path / 'pipeline'} hides Lockstep's package" in done.stderr
    assert told == hidden


@pytest.mark.long
@pytest.mark.slow
def test_worker_processes_find_the_package_that_is_hidden(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("raise RuntimeError('not this one')\n")
    assert run(tmp_path, "profile", "mine:loader").returncode == 0
    assert run(tmp_path, "check", "mine:dataset").returncode == 0


def test_the_command_gives_a_command_s_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert lockstep_data.main(["inspect", "no/such/file.parquet"]) == 2
    assert "no/such/file.parquet" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.skipif(find_spec("build") is None, reason="needs the extra: 'lockstep-data[dev]'")
def test_the_wheel_holds_the_packages_and_no_tests(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), "."]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    shadow = {"lockstep_shadow.py", "lockstep_shadow.pth"}
    assert tops == {"pipeline", "harness", "lockstep_data.py", *shadow}
    assert {"pipeline/py.typed", "harness/py.typed"} <= set(names)
    tracked = subprocess.run(
        ["git", "ls-files", "pipeline", "harness"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert set(tracked) <= set(names)
    with tarfile.open(sdist) as tar:
        held = {name.partition("/")[2] for name in tar.getnames()}
    assert {"tests/test_laws.py", "README.md", "mkdocs.yml", "Makefile"} <= held


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=str)
def test_workflows_run_the_makefile_s_commands(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    text = path.read_text()
    ran = re.findall(r"run: (.+)", text)
    assert ran
    for command in ran:
        words = command.split()
        assert words[0] == "make", command
        assert words[1] in targets, command
    assert "://" not in text  # no host, no registry


# packages that files of one purpose import at once; whoever imports these files needs the extra
OF_EXTRAS = {
    "pipeline/compat": {"ray", "transformers", "tunix"},
}


def test_what_the_library_imports_is_installed_with_it() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["project"]["dependencies"]
    installed = {re.split(r"[<>=~! ]", text)[0].replace("-", "_") for text in wanted}
    missing: dict[str, set[str]] = {}
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        known = {"pipeline"}.union(*(v for k, v in OF_EXTRAS.items() if place.startswith(k)))
        tops = {name.partition(".")[0] for name in _imported_at_once(path)}
        if rest := tops - installed - known - sys.stdlib_module_names:
            missing[place] = rest
    assert not missing


def _imported_at_once(path: Path) -> list[str]:
    # not inside of functions, `if TYPE_CHECKING` or `try`
    found: list[str] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found
