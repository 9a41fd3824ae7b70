"""Lightning: a data module whose loaders are ours; their state is in every checkpoint.

    trainer.fit(model, LockstepDataModule(ds, 256), ckpt_path="last.ckpt")

The checkpoint may come from a run with another number of processes.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from pipeline.batches.once import Once
from pipeline.dataset import Dataset
from pipeline.errors import LengthError
from pipeline.feed import TorchFeed
from pipeline.loader import Loader

# Lightning has two names, and each knows only its own classes
_package = "lightning.pytorch" if find_spec("lightning") else "pytorch_lightning"
_Base: Any = importlib.import_module(_package).LightningDataModule


class LockstepDataModule(_Base):
    """Loaders of a dataset to train on, and of one to validate on.

    Args:
        train: what is trained on.
        batch_size: rows of the global batch, over all processes.
        held_out: what is validated on, from its start each time.
        steps: batches a pass; counted data (packed, filtered) needs it, since Lightning fetches a
            batch ahead of whatever has no length, and would save the state of that.
        options: of both Loaders, as workers=.

    Raises:
        LengthError: counted or endless data without `steps`.
    """

    def __init__(
        self,
        train: Dataset,
        batch_size: int,
        *,
        held_out: Dataset | None = None,
        steps: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if steps is None and (train.counted or train.endless):
            raise LengthError(
                "Lightning wants to know how many batches a pass has, and of this dataset that is "
                "not known: give steps="
            )
        self._train, self._held_out, self._steps = train, held_out, steps
        self._size, self._options = batch_size, options

    def train_dataloader(self) -> Loader:
        """The training data; made when the processes know each other."""
        feed = TorchFeed()  # the Trainer copies batches to devices
        options: dict[str, Any] = {"remainder": "drop", "steps": self._steps, **self._options}
        return Loader(self._train, self._size, feed=feed, **options)

    def val_dataloader(self) -> Once | list[Any]:
        """The held-out data, from its start each time."""
        if self._held_out is None:
            return []
        options: dict[str, Any] = {"remainder": "drop", **self._options}
        return Loader(self._held_out, self._size, feed=TorchFeed(), **options).once()
