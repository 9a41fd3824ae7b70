"""tunix: batches for its trainers, which otherwise read all past batches again on a resume.

    trainer.train(TrainingData(loader, trainer))

The loader goes to the trainer's step directly, by arithmetic, and reads nothing on the way. The
trainer's step counter is all the state: a batch is a function of (dataset, step), on any devices.
Training ends at the trainer's `max_steps`, over as many passes as that takes; where it has none, at
the end of the loader's first pass: `ds.repeat(3)` for three epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tunix.sft.peft_trainer import TrainingInput  # pyright: ignore[reportMissingImports]

from pipeline.loader import Loader


def training_input(batch: Any) -> TrainingInput:
    """Packed rows as tunix's trainers take them: tokens, and a mask that is False for padding."""
    return TrainingInput(input_tokens=batch["tokens"], input_mask=batch["segment_ids"] > 0)


class TrainingData:
    """The batches for `PeftTrainer.train`, from the trainer's own step on.

    Args:
        loader: with a JaxFeed, for arrays on devices; its batch size is the global one.
        trainer: a PeftTrainer, or anything with `iter_steps`. It skips as many batches as it has
            trained on; these are None here, and cost nothing.
        convert: turns a batch into the input of the trainer's model.
    """

    def __init__(
        self,
        loader: Loader,
        trainer: Any,
        convert: Callable[[Any], Any] = training_input,
    ) -> None:
        self._loader, self._trainer, self._convert = loader, trainer, convert

    def __iter__(self) -> Iterator[Any]:
        done = self._trainer.iter_steps
        bounded = getattr(getattr(self._trainer, "config", None), "max_steps", None) is not None
        self._loader.seek(done)
        for _ in range(done):
            yield None
        while bounded or not self._loader.epoch:
            try:
                batch = next(self._loader)
            except StopIteration:
                return
            yield self._convert(batch)
