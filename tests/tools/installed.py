"""Builds the sdist and of it the wheel, and tests both, installed into empty environments.

    python tests/tools/installed.py --pythons "python3.11 python3.12" [-- arguments of pytest]

The tests run in a copy of the repository's tests and pages without `pipeline` and `harness`, so
that only the installed packages can be imported. The wheel passes all of them; the sdist, which is
the same files, the golden digests. Interpreters are given by name or by path; one that is not found
is named.
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
QUICK = ["-m", "not long", "-n", "2", "--dist", "loadfile"]
GOLDEN = ["-k", "golden"]


def main() -> int:
    """The exit status: 0 where the tests pass in every environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pythons", default="python3.11 python3.12 python3.13")
    parser.add_argument("--extras", default="dev", help="of the distribution")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest; default: the quick tests")
    args = parser.parse_args()
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        build = [sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        wheel, sdist = sorted((folder / "dist").iterdir(), key=lambda path: path.suffix != ".whl")
        copy = beside(folder / "repository")
        for i, name in enumerate(args.pythons.split()):
            if not runs(name):
                print(f"{name}: not found, left out")
                continue
            python = folder / f"environment{i}" / "bin" / "python"
            subprocess.run([name, "-m", "venv", str(python.parents[1])], check=True)
            again = ("--force-reinstall", "--no-deps")
            for built, how, tests in ((wheel, (), QUICK), (sdist, again, GOLDEN)):
                print(f"== {name}, {built.name}", flush=True)
                install(python, f"{built}[{args.extras}]" if args.extras else str(built), *how)
                if not passes(python, copy, args.pytest or tests):
                    failed.append(f"{name} with {built.name}")
    print("\n".join(f"failed: {what}" for what in failed) or "all passed")
    return 1 if failed else 0


def runs(name: str) -> bool:
    """Whether there is such an interpreter: version managers leave commands that only fail."""
    if shutil.which(name) is None:
        return False
    return subprocess.run([name, "-c", ""], capture_output=True, check=False).returncode == 0


def install(python: Path, what: str, *how: str) -> None:
    """Install a distribution, with what the tests need."""
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *how, what, *(() if how else NEEDS)], check=True)


def beside(copy: Path) -> Path:
    """Copy what tests read beside the packages, but not the packages."""
    copy.mkdir()
    for name in BESIDE:
        if (ROOT / name).is_dir():
            left = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=left)
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


def passes(python: Path, copy: Path, chosen: list[str]) -> bool:
    """Whether the tests pass with the package that is installed there, and with no other."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    shipped = "import pipeline, sys; assert sys.prefix in pipeline.__file__, pipeline.__file__"
    subprocess.run([str(python), "-c", shipped], cwd=copy, env=env, check=True)
    left_out = [f"--ignore={name}" for name in LEFT_OUT]
    command = [str(python), "-m", "pytest", "-q", "tests", *left_out, *chosen]
    return subprocess.run(command, cwd=copy, env=env, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
