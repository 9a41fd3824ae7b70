"""The training data of a run, found by its folder: for `python -m pipeline show` and the like."""

from __future__ import annotations

from pathlib import Path

from harness.data import open_data, training_data
from harness.metrics import Screen
from harness.rundir import RunDir
from pipeline import Dataset


def dataset(folder: Path) -> Dataset:
    """The training stream of the run in a folder.

    Raises:
        ConfigError: there is no run.
    """
    run = RunDir(folder).begun()
    cfg = run.config()
    return training_data(open_data(cfg, run.data(cfg), Screen(stderr=True)), cfg)
