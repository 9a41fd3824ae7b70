"""Accelerate: a Loader whose state `save_state` saves and `load_state` restores.

model, optimizer = accelerator.prepare(model, optimizer)
loader = prepare(accelerator, ds, 256)
accelerator.load_state("checkpoint")             # of any number of processes
for epoch in range(loader.epoch, epochs):
    for batch in loader: …
"""

from __future__ import annotations

from typing import Any

from pipeline.dataset import Dataset
from pipeline.feed import TorchFeed
from pipeline.loader import Loader


def prepare(accelerator: Any, dataset: Dataset, batch_size: int, **options: Any) -> Loader:
    """A Loader for this process's rows, on its device, known to the accelerator's checkpoints.

    Args:
        accelerator: an `accelerate.Accelerator`, created before.
        dataset: the data.
        batch_size: rows of the global batch, over all processes. Accelerate's own loaders multiply
            theirs by the number of processes.
        options: of the Loader, such as workers= or steps=.
    """
    loader = Loader(dataset, batch_size, feed=TorchFeed(accelerator.device), **options)
    accelerator.register_for_checkpointing(loader)
    return loader
