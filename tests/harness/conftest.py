"""One converted corpus and one compilation cache for all runs; one uninterrupted run to compare."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.harness.runs import Workplace


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("harness"))


@pytest.fixture(scope="session")
def uninterrupted(workplace: Workplace) -> Callable[[int], Path]:
    """The directory of a run that nothing disturbed, on so many devices."""

    @cache
    def run(devices: int) -> Path:
        workplace.train(f"whole-{devices}", devices=devices)
        return workplace.path / f"whole-{devices}"

    return run
