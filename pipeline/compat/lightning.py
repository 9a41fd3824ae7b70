"""Lightning: a data module with our Loaders, whose state is in every checkpoint.

    trainer.fit(model, LockstepDataModule(ds, 256), ckpt_path="last.ckpt")

The checkpoint may come from a run on another number of processes.
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

# Lightning has two package names, and each knows only its own classes
_package = "lightning.pytorch" if find_spec("lightning") else "pytorch_lightning"
_Base: Any = importlib.import_module(_package).LightningDataModule


class LockstepDataModule(_Base):
    """Loaders of a dataset for training, and of one for validation.

    Args:
        train: the training data.
        batch_size: rows of the global batch, over all processes.
        held_out: the validation data, read from its start each time. A short last batch is left
            out, as in training: remainder="pad" keeps it, and marks its rows in "mask".
        steps: batches in a pass. A streamed dataset (packed, filtered) needs it: Lightning fetches
            one batch ahead from a loader without a length, and would save the state after that
            batch.
        options: of both Loaders, such as workers=.

    Raises:
        LengthError: the training data are streamed or endless, and `steps` is missing.
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
        self._loader: Loader | None = None
        self._state: dict[str, Any] | None = None  # of a checkpoint, for the next Loader

    def train_dataloader(self) -> Loader | Once:
        """The training Loader. Called once processes are connected.

        A Trainer that asks again between its epochs, or trains further, gets the same Loader, which
        goes on. With `overfit_batches`, each epoch is the first one.
        """
        trainer = getattr(self, "trainer", None)
        if self._loader is None or not getattr(trainer, "global_step", 0):
            feed = TorchFeed()  # the Trainer moves batches to devices
            options: dict[str, Any] = {"remainder": "drop", "steps": self._steps, **self._options}
            self._loader = Loader(self._train, self._size, feed=feed, **options)
            self._restore()
        return self._loader.once() if getattr(trainer, "overfit_batches", 0) else self._loader

    def state_dict(self) -> dict[str, Any]:
        """The training Loader's state, for each checkpoint. All processes must call it."""
        return {} if self._loader is None else {"train": self._loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint was written.

        Lightning restores the state of a loader only where an epoch had not ended.
        """
        self._state = state_dict.get("train")
        self._restore()

    def _restore(self) -> None:
        if self._loader is not None and self._state is not None:
            self._loader.load_state_dict(self._state)
            self._state = None

    def val_dataloader(self) -> Once | list[Any]:
        """The validation data, from the start each time."""
        if self._held_out is None:
            return []
        options: dict[str, Any] = {"remainder": "drop", **self._options}
        return Loader(self._held_out, self._size, feed=TorchFeed(), **options).once()
