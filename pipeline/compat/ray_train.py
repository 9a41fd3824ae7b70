"""Ray Train: a Loader in each training worker, whose state is stored in Ray's checkpoints.

    def train(config):                               # TorchTrainer runs it on each worker
        loader = make_loader(ds, 256)                # resumes from the checkpoint, if there is one
        for batch in loader:
            …
            report({"loss": loss}, loader, save=lambda folder: torch.save(…))

A run that is started again with the same `RunConfig(name=…, storage_path=…)` goes on from its last
checkpoint, also with another `ScalingConfig(num_workers=…)`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import ray.train

from pipeline.checkpoint.files import read_state
from pipeline.dataset import Dataset
from pipeline.feed import TorchFeed
from pipeline.loader import Loader

_STATE = "lockstep.json"


def make_loader(
    dataset: Dataset, batch_size: int, *, device: Any = "cpu", **options: Any
) -> Loader:
    """A Loader for this worker's rows, at the position that the run's checkpoint says.

    Args:
        dataset: the data.
        batch_size: rows of the global batch, over all workers.
        device: where tensors go.
        options: of the Loader. Its workers= are processes besides this worker.
    """
    loader = Loader(dataset, batch_size, feed=TorchFeed(device), **options)
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            loader.load_state_dict(read_state(os.path.join(folder, _STATE)))
    return loader


def report(
    metrics: Mapping[str, Any], loader: Loader, save: Callable[[str], None] = lambda folder: None
) -> None:
    """Report metrics with a checkpoint of the data's state and whatever `save` writes.

    Every worker must call it.

    Args:
        metrics: as for `ray.train.report`.
        loader: from `make_loader`.
        save: writes model and optimizer into a folder; called only on the first worker.
    """
    state = loader.state_dict()
    if ray.train.get_context().get_world_rank() != 0:
        ray.train.report(dict(metrics))
        return
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, _STATE), "w") as file:
            json.dump(state, file)
        save(folder)
        checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(dict(metrics), checkpoint=checkpoint)
