"""torchtitan's own cases for a loader's state run in an environment that has torchtitan 0.3.0."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.compat.ranks import ROOT, peer

pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")


@pytest.mark.long
def test_torchtitan_s_own_cases_for_a_loader_s_state_pass_with_ours() -> None:
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore", "tests/compat/torchtitan_state.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=ROOT,
        env=peer("torchtitan"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stdout[-4000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
