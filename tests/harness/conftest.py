"""One converted corpus and one compilation cache for all runs; one undisturbed run; digits."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
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


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Files like MNIST's, of classes that a glance tells apart."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 64), ("t10k", 16)):
        labels = np.arange(n, dtype=np.uint8) % 10
        images = rng.integers(0, 40, (n, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 4] = 250
        for what, values, kind in (("images", images, 3), ("labels", labels, 1)):
            head = struct.pack(f">4B{kind}i", 0, 0, 8, kind, *values.shape)
            (tmp_path / f"{part}-{what}-idx{kind}-ubyte").write_bytes(head + values.tobytes())
    return tmp_path
