"""What `LockstepTrainer` gives its model in some trainings, as JSON: run with transformers."""
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from pipeline import Dataset
from pipeline.compat.huggingface import LockstepTrainer
from pipeline.errors import LengthError

ROWS, SIZE = 80, 8  # ten batches a pass


class Model(torch.nn.Module):
    """Remembers the rows of each batch; the third may be too much for its memory."""

    def __init__(self, seen: list[Any], *, full: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.seen, self.full = torch.nn.Linear(1, 1), seen, full

    def forward(self, x: Any, **_: Any) -> Any:
        self.seen.append(x.tolist())
        if self.full and len(self.seen) == 3:
            raise RuntimeError("CUDA out of memory.")
        return {"loss": (self.linear(x.float()[:, None]) ** 2).mean() * 1e-3}


class Stop(transformers.TrainerCallback):
    """Ends a training after so many optimizer steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step == self.after


def trainer(folder: Path, stop: int = -1, *, full: bool = False, **options: Any) -> Any:
    """A trainer, and the batches that its model will have seen."""
    seen: list[Any] = []
    known = ("steps", "data_collator")
    given = {name: options.pop(name) for name in known if name in options}
    args = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=SIZE,
        learning_rate=1e-2,
        save_steps=1,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **{"num_train_epochs": 2, **options},
    )
    ds = Dataset({"x": np.arange(ROWS)}, seed=1).shuffle()
    model = Model(seen, full=full)
    return LockstepTrainer(model, args, train_dataset=ds, callbacks=[Stop(stop)], **given), seen


def accumulated(folder: Path) -> Any:
    """Batches and weight of an uninterrupted run, and of one that was resumed inside a pass."""
    whole, seen = trainer(folder / "whole", gradient_accumulation_steps=4)
    whole.train()
    first, before = trainer(folder / "parts", 1, gradient_accumulation_steps=4)
    first.train()
    second, after = trainer(folder / "parts", gradient_accumulation_steps=4)
    second.train(resume_from_checkpoint=True)
    weights = [t.model.linear.weight.item() for t in (whole, second)]
    steps = [t.state.global_step for t in (whole, second)]
    return {"batches": [seen, before + after], "weights": weights, "steps": steps}


def again(folder: Path) -> Any:
    """The batches of two trainings by one trainer."""
    one, seen = trainer(folder, 3)
    one.train()
    one.train()
    return seen


def smaller(folder: Path) -> Any:
    """The sizes of batches, of which the third did not fit into memory."""
    one, seen = trainer(folder, auto_find_batch_size=True, full=True, num_train_epochs=1)
    one.train()
    return [len(batch) for batch in seen]


def collated(folder: Path) -> Any:
    """How many rows each call of a collator was given."""
    calls: list[int] = []

    def collator(rows: list[Any]) -> Any:
        calls.append(len(rows))
        return {"x": torch.tensor([int(row["x"]) for row in rows])}

    one, _ = trainer(folder, data_collator=collator, num_train_epochs=1)
    one.train()
    return calls


def refused(folder: Path) -> Any:
    """The error for passes that hold a part of an optimizer step."""
    try:
        trainer(folder, gradient_accumulation_steps=4, steps=10)
    except LengthError as error:
        return str(error)
    return None


if __name__ == "__main__":
    where = Path(sys.argv[1])
    runs = (accumulated, again, smaller, collated, refused)
    found = {run.__name__: run(where / run.__name__) for run in runs}
    (where / "found.json").write_text(json.dumps(found))
