"""A torch model trained in one go, and in pieces that each end in the middle: the same weights.

The augmentation draws from torch's global generator, as torchvision's do, and so does dropout: the
one is seeded for each row, the other goes on where its checkpoint left it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import Dataset, Loader, TorchFeed

EPOCHS = 3
STOPS = (7, 8, 31)  # steps after which a launch ends, as if it had been killed


def augment(row: Any, _: np.random.Generator) -> Any:
    """Gaussian noise from torch's global generator."""
    return {**row, "x": row["x"] + 0.1 * torch.randn(row["x"].shape).numpy()}


def dataset() -> Dataset:
    """Points of two classes, shuffled anew each epoch, each with fresh noise."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=400)
    x = (rng.normal(size=(400, 8)) + y[:, None]).astype(np.float32)
    return Dataset({"x": x, "y": y}, seed=1).shuffle().random_map(augment, seed_globals=True)


def loader() -> Loader:
    """Batches of 32 as tensors; the last short one of an epoch is dropped."""
    return Loader(dataset(), 32, feed=TorchFeed(), remainder="drop")


def train(checkpoint: Path, stop: int | None = None) -> torch.nn.Module:
    """Go on from the checkpoint, if there is one, to the end or to step `stop`."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(32, 2)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    data = loader()
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        data.load_state_dict(saved["loader"])
        torch.set_rng_state(saved["rng"])
    for _ in range(data.epoch, EPOCHS):
        for batch in data:
            loss = torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            save(checkpoint, model=model, optimizer=optimizer, loader=data)
            if data.step == stop:
                print(f"stopped after step {stop}, loss {loss.item():.4f}")
                return model
    print(f"trained to step {data.step}, epoch {data.epoch}")
    return model


def save(checkpoint: Path, **parts: Any) -> None:
    """Model, optimizer, data and dropout's generator in one file, by an atomic rename."""
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**states, "rng": torch.get_rng_state()}, checkpoint.with_suffix(".new"))
    os.replace(checkpoint.with_suffix(".new"), checkpoint)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        whole = train(Path(name) / "whole.pt").state_dict()
        for stop in STOPS:
            train(Path(name) / "pieces.pt", stop)
        pieces = train(Path(name) / "pieces.pt").state_dict()
    differing = [key for key in whole if not torch.equal(whole[key], pieces[key])]
    if differing:
        sys.exit(f"weights differ: {differing}")
    print(f"{sum(w.numel() for w in whole.values())} weights, bit for bit the same")


if __name__ == "__main__":
    main()
