"""TorchFeed in other people's loops: Lightning and Accelerate, interrupted and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Dataset, Loader, TorchFeed

torch = pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # theirs, not ours

X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
DS = Dataset({"x": X, "id": np.arange(60)}, seed=1).shuffle()


def train_loader() -> Loader:
    return Loader(DS, 8, feed=TorchFeed(), remainder="drop")


class Stopped(Exception):
    """The run was interrupted."""


# ---- Lightning


def fit(
    seen: list[Any], *, loader: Loader | None = None, stop: int = 0, resume: Path | None = None
) -> Any:
    """Three epochs of a linear model, or up to step `stop`, where a checkpoint is left."""
    lightning = pytest.importorskip("lightning", reason="needs: pip install lightning")

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            seen.append(("train", self.current_epoch, index, batch["id"].tolist()))
            return self.linear(batch["x"]).pow(2).mean()

        def validation_step(self, batch: Any, index: int) -> None:
            seen.append(("check" if self.trainer.sanity_checking else "val", index))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == stop:
                trainer.save_checkpoint(resume)
                raise Stopped

    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Stop()] if stop else [],
    )
    model = Model()
    held_out = Loader(DS[:20], 8, feed=TorchFeed()).once()
    loader = loader or train_loader()
    trainer.fit(model, loader, held_out, ckpt_path=None if stop else resume)
    assert trainer.train_dataloader is loader
    return model.linear.weight.tolist()


def trained(seen: list[Any]) -> list[Any]:
    return [step for step in seen if step[0] == "train"]


def test_lightning_passes_over_the_loader_as_over_its_own() -> None:
    seen: list[Any] = []
    fit(seen)
    assert seen[:2] == [("check", 0), ("check", 1)]
    assert [s for s in seen if s[0] == "val"] == [("val", 0), ("val", 1), ("val", 2)] * 3
    expected = train_loader()
    passes = [(e, i, b["id"].tolist()) for e in range(3) for i, b in enumerate(expected)]
    assert [step[1:] for step in trained(seen)] == passes
    assert len(passes) == 3 * len(expected) == 21


# in the middle of an epoch, and just as one ends
@pytest.mark.parametrize("stop", [10, 14])
def test_lightning_resumes_to_the_same_weights(stop: int, tmp_path: Path) -> None:
    whole: list[Any] = []
    weights = fit(whole)
    first: list[Any] = []
    with pytest.raises(Stopped):
        fit(first, stop=stop, resume=tmp_path / "it.ckpt")
    rest: list[Any] = []
    assert fit(rest, resume=tmp_path / "it.ckpt") == weights
    assert trained(first) + trained(rest) == trained(whole)


def test_lightning_resumes_counted_data_if_steps_give_it_a_length(tmp_path: Path) -> None:
    # without a length it fetches one batch ahead of the step, and saves that state
    def loader(steps: int | None) -> Loader:
        ds = DS.filter(lambda row: row["id"] % 3 > 0).repeat()
        return Loader(ds, 8, feed=TorchFeed(), steps=steps)

    whole: list[Any] = []
    weights = fit(whole, loader=loader(7))
    with pytest.raises(Stopped):
        fit([], loader=loader(7), stop=10, resume=tmp_path / "it.ckpt")
    assert fit([], loader=loader(7), resume=tmp_path / "it.ckpt") == weights
    unsized = loader(None)
    with pytest.raises(Stopped):
        fit([], loader=unsized, stop=5, resume=tmp_path / "unsized.ckpt")
    assert unsized.step == 6


# ---- Accelerate


def accelerated(folder: Path, *, stop: int = 0, resume: bool = False) -> Any:
    accelerate = pytest.importorskip("accelerate", reason="needs: pip install accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    torch.manual_seed(0)
    linear = torch.nn.Linear(4, 1)
    own = train_loader()
    model, optimizer, loader = accelerator.prepare(
        linear, torch.optim.SGD(linear.parameters(), 0.1), own
    )
    assert loader is own
    accelerator.register_for_checkpointing(loader)
    if resume:
        accelerator.load_state(str(folder))
    for _ in range(loader.epoch, 3):
        for batch in loader:
            optimizer.zero_grad()
            accelerator.backward(model(batch["x"]).pow(2).mean())
            optimizer.step()
            if loader.step == stop:
                accelerator.save_state(str(folder))
                return None
    return linear.weight.tolist()


@pytest.mark.parametrize("stop", [10, 14])
def test_accelerate_resumes_to_the_same_weights(stop: int, tmp_path: Path) -> None:
    weights = accelerated(tmp_path / "whole")
    assert accelerated(tmp_path / "run", stop=stop) is None
    assert accelerated(tmp_path / "run", resume=True) == weights
