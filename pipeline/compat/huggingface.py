"""Hugging Face's Trainer, fed by a Loader: a resumed run continues its data exactly, and at once.

    trainer = LockstepTrainer(model, args, train_dataset=ds)
    trainer.train(resume_from_checkpoint=True)

`ds` is a Dataset whose rows are what the model takes. The global batch size is `args`'
`per_device_train_batch_size` times the number of processes. Keep the product, and a run resumes on
another number of processes with the same global batches. The Trainer by itself would read and
discard all earlier batches on a resume.

With `gradient_accumulation_steps`, a pass ends with the last whole optimizer step: the Trainer
resumes right only from passes that hold no part of one. Rows that are left out come in other
passes, as they do with a short last batch.
"""

from __future__ import annotations

import json
import os
from typing import Any

import transformers  # pyright: ignore[reportMissingImports]
from transformers.trainer_utils import (  # pyright: ignore[reportMissingImports]
    get_last_checkpoint,
)

from pipeline.checkpoint.files import read_state
from pipeline.dataset import Dataset
from pipeline.errors import ChainError, LengthError
from pipeline.feed import TorchFeed
from pipeline.loader import Loader
from pipeline.sources.storage.atomic import written_whole

_STATE = "lockstep.json"  # in each checkpoint's folder
_Trainer: Any = transformers.Trainer


class LockstepTrainer(_Trainer):
    """`transformers.Trainer` whose `train_dataset` is a Dataset.

    Args:
        train_dataset: the Dataset.
        data_collator: if given, makes each training batch from a list of rows, too.
        steps: batches in a pass; needed if the dataset is streamed or endless.
        loader_options: of the Loader, such as workers=.

    Raises:
        ChainError: the dataset is none of ours.
        LengthError: the dataset is streamed or endless, and `steps` is missing; or it is no
            multiple of `gradient_accumulation_steps`.
    """

    def __init__(
        self,
        *args: Any,
        train_dataset: Dataset,
        steps: int | None = None,
        loader_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(train_dataset, Dataset):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ChainError(
                f"LockstepTrainer wants a Dataset, not {type(train_dataset).__name__}: Dataset(…)"
            )
        if steps is None and (train_dataset.counted or train_dataset.endless):
            raise LengthError("the Trainer wants to know how many batches a pass has: give steps=")
        super().__init__(*args, **kwargs)
        if steps is not None and steps != (fit := self._whole_updates(steps)):
            raise LengthError(
                f"{steps=} is no multiple of gradient_accumulation_steps="
                f"{self.args.gradient_accumulation_steps}: a run resumed inside a pass would lose "
                f"an optimizer step. Give steps={fit}."
            )
        self.train_dataset = train_dataset  # only now: Trainer would want a length of any dataset
        collator = kwargs.get("data_collator", args[2] if len(args) > 2 else None)
        self._options: dict[str, Any] = {"remainder": "drop", "steps": steps, "collate": collator}
        self._options |= loader_options or {}
        self._loader: Loader | None = None
        self._begun: dict[str, Any] | None = None  # where this training goes on
        self._size = 0
        self.args.ignore_data_skip = True  # the Loader's state says where to resume
        self.add_callback(_Saving(self))

    def get_train_dataloader(self) -> Loader:
        """The Loader for this process's rows of the global batch."""
        size = self._train_batch_size * self.args.world_size
        if self._loader is None or size != self._size:  # auto_find_batch_size tries smaller ones
            self._close()
            self._loader, self._size = self._opened(size), size
        return self._loader

    def _opened(self, size: int) -> Loader:
        feed = TorchFeed(self.args.device)
        loader = Loader(self.train_dataset, size, feed=feed, **self._options)
        if (steps := self._whole_updates(len(loader))) != len(loader):
            loader = loader.like(steps=steps)
        if self._begun is not None:
            loader.load_state_dict(self._begun)
        return loader

    def _whole_updates(self, batches: int) -> int:
        # batches of a pass without the part of an optimizer step at its end
        each = self.args.gradient_accumulation_steps
        return batches if batches < each else batches // each * each

    def _close(self) -> None:
        loader, self._loader = self._loader, None
        if loader is not None:
            loader.close()

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """As the Trainer's; restores the data state of the checkpoint too.

        Raises:
            StateError: the checkpoint has no data state, because another trainer wrote it.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir)
        self._close()  # a training begins at its checkpoint, or at the start
        path = os.path.join(str(resume_from_checkpoint), _STATE)
        self._begun = read_state(path) if resume_from_checkpoint else None
        return super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)


class _Saving(transformers.TrainerCallback):
    def __init__(self, trainer: LockstepTrainer) -> None:
        self._trainer = trainer

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # in every process: they gather the state of a streamed dataset together
        data = self._trainer.get_train_dataloader().state_dict()
        if state.is_world_process_zero:
            folder = os.path.join(args.output_dir, f"checkpoint-{state.global_step}")
            with written_whole(os.path.join(folder, _STATE)) as file:
                file.write(json.dumps(data).encode())
