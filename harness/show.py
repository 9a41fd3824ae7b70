"""Printing the records and text of past steps. Needs no model, and works on any machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from harness.config import Config
from harness.data import open_data, training_data
from harness.files import read_json
from harness.ledger import read
from harness.metrics import Screen
from harness.plan import check_known
from harness.rundir import RunDir
from harness.task import make_task
from pipeline import Loader

Shown = Callable[[Mapping[str, Any], int], str]  # a row of a batch, or its segment k, as text


def show(run: RunDir, screen: Screen, *, cfg: Config, steps: range) -> int:
    """Print the rows of steps. Data are read again, from the state in a checkpoint before them.

    Raises:
        ConfigError: the ledger has no line for one of the steps.
    """
    data_steps = {entry.step: entry.data_step for entry in read(run.ledger)}
    check_known(steps, data_steps)
    shown = make_task(cfg).show
    data = training_data(open_data(cfg, run.data(cfg), screen), cfg)
    with closing(Loader(data, cfg.batch_size)) as loader:
        state = _state_before(run, data_steps[steps.start])
        if state is not None:
            with run.same_data():
                loader.load_state_dict(state)
        for step in steps:
            show_rows(shown, loader, step, data_steps[step], loader[data_steps[step]], screen)
    return 0


def _state_before(run: RunDir, data_step: int) -> Any:
    """The loader's state in the newest checkpoint at or before a data step, or None."""
    found = [read_json(path) for path in run.checkpoints.glob("[0-9]*/data/loader.json")]
    before = [state for state in found if state is not None and state["step"] <= data_step]
    return max(before, key=lambda state: state["step"], default=None)


def show_rows(
    shown: Shown,
    loader: Loader,
    step: int,
    data_step: int,
    batch: Mapping[str, Any],
    screen: Screen,
) -> None:
    """Print each row of a step's batch: where its segments are from, and the text by `shown`."""
    screen.say(f"step {step:,}, data step {data_step:,}")
    for i, origin in enumerate(loader.where(data_step)):
        row = {name: np.asarray(values)[i] for name, values in batch.items()}
        parts = [(at.row, f"  tokens [{at.start}:{at.stop}]") for at in origin.segments]
        for k, (at, span) in enumerate(parts or [(origin, "")]):
            place = f"epoch {at.epoch}  record {at.file_record} of {Path(at.file).name}"
            screen.say(f"  row {i}  {place}{span}\n    {shown(row, k)}")
