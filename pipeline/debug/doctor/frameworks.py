"""Subjects whose loop or state belongs to a framework: Lightning's Trainer and Accelerate."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

from pipeline.debug.doctor.subjects import Looped, Subject, Watch


class Lightning(Subject):
    """(Trainer, module), or with data: the loop is `Trainer.fit`, the state is a checkpoint."""

    plain, torch = False, True

    def __init__(self, trainer: Any, module: Any, data: Any = None) -> None:
        self._trainer, self._module, self._data = trainer, module, data
        self._checkpoint: bytes | None = None

    def run(self, watch: Watch, epoch: int) -> None:
        trainer = self._trainer
        trainer.callbacks.append(_callback(trainer, watch))
        trainer.fit_loop.max_epochs = -1  # who looks on ends it
        trainer.fit_loop.epoch_loop.max_steps = -1
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "it.ckpt")
            if self._checkpoint is not None:
                with open(path, "wb") as file:
                    file.write(self._checkpoint)
            begin = path if self._checkpoint is not None else None
            trainer.fit(self._module, self._data, ckpt_path=begin)

    def save(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "it.ckpt")
            self._trainer.save_checkpoint(path)
            with open(path, "rb") as file:
                return file.read()

    def restore(self, states: list[Any], rank: int) -> None:
        self._checkpoint = states[rank % len(states)]


def _callback(trainer: Any, watch: Watch) -> Any:
    import importlib

    package = type(trainer).__module__.split(".")[0]
    name = "lightning.pytorch" if package == "lightning" else package

    class Looking(importlib.import_module(name).Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            watch.came(batch)

        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            watch.after()

        def on_train_epoch_end(self, *_: Any) -> None:
            watch.edge()

    return Looking()


class Skipping(Looped):
    """A loader that Accelerate prepared, without a state: `skip_first_batches` goes on."""

    keeps = True

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self.keeps, self._epoch, self._taken, self._skip = True, 0, 0, 0

    def begin(self, epoch: int) -> None:
        super().begin(epoch)
        self._epoch = epoch

    def iterate(self) -> Iterator[Any]:
        from accelerate import skip_first_batches  # pyright: ignore[reportMissingImports]

        loader = skip_first_batches(self.loader, self._skip) if self._skip else self.loader
        self._taken, self._skip = self._skip, 0
        for batch in loader:
            self._taken += 1
            yield batch

    def save(self) -> Any:
        return {"epoch": self._epoch, "taken": self._taken}

    def restore(self, states: list[Any], rank: int) -> None:
        self._skip = states[rank % len(states)]["taken"]


class Accelerated(Skipping):
    """(Accelerator, loader): the state is `save_state`'s folder."""

    plain, torch = False, True

    def __init__(self, accelerator: Any, loader: Any) -> None:
        super().__init__(loader)
        self.torch = True
        self._accelerator = accelerator
        self._stateful = getattr(loader, "use_stateful_dataloader", True) and hasattr(
            loader, "state_dict"
        )

    def save(self) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            self._accelerator.save_state(folder)
            return {"taken": self._taken, "files": _files(folder)}

    def restore(self, states: list[Any], rank: int) -> None:
        self._skip = 0 if self._stateful else states[rank % len(states)]["taken"]
        # ranks save into one folder: the first one what all share, each what is its own
        files = {name: content for s in reversed(states) for name, content in s["files"].items()}
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = os.path.join(folder, name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(content)
            self._accelerator.load_state(folder)


def _files(folder: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found
