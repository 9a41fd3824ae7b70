"""What one rank does in each trainer: goes on from the last stage, takes some steps, and saves.

Run as `python -m tests.compat.trainers TRAINER FOLDER STAGE`, with torchrun's variables set.
"""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# pyright: reportPrivateImportUsage=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.compat.ranks import BATCH, LENGTH, PASS, STEPS, dataset

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def accelerate(folder: Path, stage: int) -> list[Any]:
    from accelerate import Accelerator

    from pipeline.compat.accelerate import prepare

    accelerator = Accelerator(cpu=True)
    loader = prepare(accelerator, dataset(), BATCH, steps=PASS)
    if stage:
        accelerator.load_state(str(folder / f"state{stage - 1}"))
    seen = [next(loader)["tokens"].tolist() for _ in range(STEPS)]
    accelerator.save_state(str(folder / f"state{stage}"))
    return seen


def torch_dataloader(folder: Path, stage: int) -> list[Any]:
    import torch.distributed as dist

    from pipeline.compat.torch_dataloader import DataLoader

    if WORLD > 1:
        dist.init_process_group("gloo")
    loader = DataLoader(dataset(), batch_size=BATCH // WORLD, steps=PASS)
    if stage:
        loader.load_state_dict(json.loads((folder / f"state{stage - 1}").read_text()))
    passing = iter(loader)
    seen = [next(passing)["tokens"].tolist() for _ in range(STEPS)]
    state = loader.state_dict()
    if RANK == 0:
        (folder / f"state{stage}").write_text(json.dumps(state))
    return seen


def torchtitan(folder: Path, stage: int) -> list[Any]:
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torchtitan.components.dataloader import BaseDataLoader

    from pipeline.compat.torchtitan import LockstepDataLoader

    dist.init_process_group("gloo")
    loader = LockstepDataLoader.Config(dataset="tests.compat.ranks:dataset").build(
        dp_world_size=WORLD,
        dp_rank=RANK,
        tokenizer=None,
        seq_len=LENGTH,
        local_batch_size=BATCH // WORLD,
        snapshot_every_n_steps=1,
    )
    assert isinstance(loader, BaseDataLoader)
    if stage:
        dcp.load({"dataloader": loader}, checkpoint_id=folder / f"state{stage - 1}")
    batches, seen = iter(loader), list[Any]()
    for _ in range(STEPS):
        inputs, labels = next(batches)
        last = _last_tokens(loader)
        seen.append([[*row, end] for row, end in zip(inputs["input"].tolist(), last, strict=True)])
        known = labels != -100
        assert (labels[:, :-1] == inputs["input"][:, 1:])[known[:, :-1]].all()
        assert inputs["positions"].shape == labels.shape == (BATCH // WORLD, LENGTH)
    dcp.save({"dataloader": loader}, checkpoint_id=folder / f"state{stage}")
    return seen


def _last_tokens(loader: Any) -> list[int]:
    # a row's last token is only a label, and none where a document ends there
    own = loader.loader
    return own[own.last_step]["tokens"][:, -1].tolist()


def lightning(folder: Path, stage: int) -> list[Any]:
    import lightning as pl
    import torch

    from pipeline.compat.lightning import LockstepDataModule

    seen: list[Any] = []

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(1, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            seen.append(batch["tokens"].tolist())
            return self.linear(batch["tokens"].float().mean()[None]).sum()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1e-6)

    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if len(seen) == STEPS:
                trainer.save_checkpoint(folder / f"state{stage}")
                trainer.should_stop = True

    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        num_nodes=WORLD,
        strategy="ddp" if WORLD > 1 else "auto",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Stop()],
    )
    data = LockstepDataModule(dataset(), BATCH, steps=PASS)
    trainer.fit(Model(), data, ckpt_path=folder / f"state{stage - 1}" if stage else None)
    return seen


def huggingface(folder: Path, stage: int) -> list[Any]:
    import torch
    import transformers

    from pipeline.compat.huggingface import LockstepTrainer

    seen: list[Any] = []

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(1, 1)

        def forward(self, tokens: Any, **_: Any) -> Any:
            seen.append(tokens.tolist())
            return {"loss": self.linear(tokens.float().mean()[None]).sum()}

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = len(seen) == STEPS

    args = transformers.TrainingArguments(
        output_dir=str(folder / "run"),
        per_device_train_batch_size=BATCH // WORLD,
        num_train_epochs=1,
        learning_rate=1e-6,
        save_steps=STEPS,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = LockstepTrainer(
        Model(), args, train_dataset=dataset(), steps=PASS, callbacks=[Stop()]
    )
    trainer.train(resume_from_checkpoint=bool(stage))
    return seen


def _leave() -> None:
    # together: gloo's threads abort a process that ends while others still talk to it
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    name, where, number = sys.argv[1:]
    given = globals()[name](Path(where), int(number))
    (Path(where) / f"{number}.{RANK}.json").write_text(json.dumps(given))
    _leave()
