"""Lightning's Trainer and our data module: what its options make of the passes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lightning", reason="needs: pip install 'lockstep-data[loops]'")
torch = pytest.importorskip("torch", reason="needs the extra: pip install 'lockstep-data[torch]'")

import lightning as pl  # noqa: E402

from pipeline import Dataset, Loader  # noqa: E402
from pipeline.compat.lightning import LockstepDataModule  # noqa: E402

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]  # Lightning's, not ours
DS = Dataset({"x": np.arange(40)}, seed=1).shuffle()
PASSES = [[batch["x"].tolist() for batch in loader] for loader in [Loader(DS, 8)] * 3]


class Model(pl.LightningModule):
    """Remembers the rows of each epoch's batches."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.seen: list[Any] = []

    def on_train_epoch_start(self) -> None:
        self.seen.append([])

    def training_step(self, batch: Any, index: int) -> Any:
        self.seen[-1].append(batch["x"].tolist())
        return self.linear(batch["x"].float()[:, None]).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-6)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def trainer(**options: Any) -> Any:
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return pl.Trainer(accelerator="cpu", **dict.fromkeys(quiet, False), **options)


def test_loaders_that_are_asked_for_again_go_on() -> None:
    model = Model()
    once = trainer(max_epochs=3, reload_dataloaders_every_n_epochs=1)
    once.fit(model, LockstepDataModule(DS, 8))
    assert model.seen == PASSES


def test_a_trainer_goes_on_and_another_one_begins_anew() -> None:
    model, data = Model(), LockstepDataModule(DS, 8)
    first = trainer(max_epochs=1)
    first.fit(model, data)
    first.fit_loop.max_epochs = 2
    first.fit(model, data)
    trainer(max_epochs=1).fit(model, data)
    assert model.seen == [*PASSES[:2], PASSES[0]]


class Saving(pl.Callback):
    """Writes a checkpoint at the end of the first epoch, as ModelCheckpoint does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("fresh", [True, False])
def test_a_checkpoint_of_an_epoch_s_end_goes_on_with_the_next_pass(
    tmp_path: Path, *, fresh: bool
) -> None:
    data, path = LockstepDataModule(DS, 8), tmp_path / "end.ckpt"
    whole, resumed = Model(), Model()
    trainer(max_epochs=3, callbacks=[Saving(path)]).fit(whole, data)
    data = LockstepDataModule(DS, 8) if fresh else data
    trainer(max_epochs=3).fit(resumed, data, ckpt_path=path)
    assert whole.seen == PASSES
    assert resumed.seen == PASSES[1:]
    anew = Model()
    trainer(max_epochs=1).fit(anew, data)
    assert anew.seen == PASSES[:1]


def test_overfitting_has_the_same_batches_in_each_epoch() -> None:
    model = Model()
    trainer(max_epochs=3, overfit_batches=2).fit(model, LockstepDataModule(DS, 8))
    assert model.seen == [PASSES[0][:2]] * 3
