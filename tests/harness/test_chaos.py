"""Thirty signals at random moments leave a run as it would have been; `make chaos` sends 1,000."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.chaos import Chaos


@pytest.mark.long
def test_thirty_random_signals(tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, seed=13)
    chaos.kills(30)
    assert chaos.done.total() == 30
    assert not chaos.failures, "\n".join(chaos.failures)
