"""Builds wheel and sdist, and runs the tests on each, installed into empty environments.

    python tests/tools/installed.py --pythons "python3.11 python3.12 python3.13" [-- pytest's arguments]

The tests run in a copy of the repository's tests and pages without `pipeline` and `harness`, so that only
the installed packages can be imported. An interpreter that is not found is named and left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
# what tests read beside the packages
BESIDE = (
    "tests",
    "docs",
    "examples",
    "benchmarks",
    "conftest.py",
    "pyproject.toml",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "llms.txt",
    "SKILL.md",
    "mkdocs.yml",
    "Makefile",
)
# of these, what reads the packages' own sources is of the repository, not of what is installed
LEFT_OUT = (
    "tests/test_layers.py",
    "tests/test_architecture.py",
    "tests/test_packaging.py",
    "tests/test_types.py",
    "tests/docs",
)
NEEDS = ("pytest", "pytest-xdist", "hypothesis")


def main() -> int:
    """The exit status: 0 where the tests pass in every environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pythons", default="python3.11 python3.12 python3.13")
    parser.add_argument("--extras", default="", help="of the wheel, as in harness,torch")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest; default: the quick tests")
    args = parser.parse_args()
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        build = [sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        for name in args.pythons.split():
            python = shutil.which(name)
            if python is None:
                print(f"{name}: not found, left out")
                continue
            for built in sorted((folder / "dist").iterdir()):
                print(f"== {name}, {built.name}", flush=True)
                place = folder / f"{Path(name).name}-{built.suffix[1:]}"
                if not _passes(python, built, args.extras, place, args.pytest):
                    failed.append(f"{name} with {built.name}")
    print("\n".join(f"failed: {what}" for what in failed) or "all passed")
    return 1 if failed else 0


def _passes(python: str, built: Path, extras: str, place: Path, more: list[str]) -> bool:
    subprocess.run([python, "-m", "venv", str(place / "env")], check=True)
    inner = place / "env" / "bin" / "python"
    what = f"{built}[{extras}]" if extras else str(built)
    pip = [str(inner), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, what, *NEEDS], check=True)
    copy = place / "repository"
    for name in BESIDE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            copy.mkdir(exist_ok=True)
            shutil.copy(source, copy / name)
    shipped = "import pipeline, sys; assert sys.prefix in pipeline.__file__, pipeline.__file__"
    subprocess.run([str(inner), "-c", shipped], cwd=copy, env=_environment(), check=True)
    command = [str(inner), "-m", "pytest", "-q", "--confcutdir=.", *_chosen(more)]
    return subprocess.run(command, cwd=copy, env=_environment(), check=False).returncode == 0


def _chosen(more: list[str]) -> list[str]:
    left_out = [f"--ignore={name}" for name in LEFT_OUT]
    return [*left_out, *(more or ["-m", "not long", "-n", "2", "--dist", "loadfile", "tests"])]


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


if __name__ == "__main__":
    sys.exit(main())
