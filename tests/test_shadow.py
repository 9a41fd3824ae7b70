"""A script of the user's that is called pipeline.py is told to rename itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lockstep_shadow
import pipeline
from lockstep_shadow import Shadow

ROOT = Path(lockstep_shadow.__file__).parent  # the repository, or where it is installed


def run(tmp_path: Path, script: str, text: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / script).write_text(text)
    # as an installed lockstep_shadow.pth does when the interpreter starts, and the script's folder
    # stands before the package's
    start = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import lockstep_shadow\n"
    )
    start += f"import runpy; runpy.run_path({str(tmp_path / script)!r}, run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-S", "-c", start], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("script", ["pipeline.py", "train.py"])
def test_a_script_that_hides_the_package_says_so(tmp_path: Path, script: str) -> None:
    (tmp_path / "pipeline.py").write_text("STEPS = 3\n")
    done = run(tmp_path, script, "from pipeline import Dataset, Loader\n")
    hint = f"{tmp_path}/pipeline.py hides Lockstep's package 'pipeline', which has 'Dataset': "
    assert done.stderr.endswith(f"ImportError: {hint}rename the file.\n")


def test_another_project_s_module_of_that_name_works(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text("STEPS = 3\n")
    text = "import pipeline\nassert pipeline.STEPS == 3\nassert not hasattr(pipeline, 'other')\n"
    assert run(tmp_path, "train.py", text).returncode == 0


def test_every_public_name_is_known() -> None:
    assert set(pipeline.__all__) == Shadow.NAMES


def test_it_costs_nothing_to_start(tmp_path: Path) -> None:
    code = "import sys; before = set(sys.modules); import lockstep_shadow\n"
    code += "print(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["lockstep_shadow"]
