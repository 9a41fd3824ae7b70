"""A loss spike in a plain PyTorch loop: found in the journal, traced to its record, gone back over.

A small model learns to predict the next byte of documents that are packed into rows. One document
holds noise. Three lines are Lockstep's: the loader, the journal, and its `log`.

    python examples/torch_spike.py [FOLDER]

With FOLDER the run stays there, for `python -m pipeline spikes FOLDER` and the like.
"""

from __future__ import annotations

import contextlib
import copy
import sys
import tempfile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import Dataset, Loader, TorchFeed
from pipeline.debug.journal import Journal, Run
from pipeline.debug.spikes import find_spikes

STEPS, SAVE_EVERY, LENGTH, BAD = 120, 20, 64, 701
WORDS = "the model reads a batch and learns from each row it holds".split()  # noqa: SIM905


def documents() -> list[NDArray[np.int64]]:
    """1,500 documents of a few words, one of which is noise."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(20, 60))) for _ in range(1500)]
    found = [np.frombuffer(text.encode(), np.uint8).astype(np.int64) for text in texts]
    found[BAD] = rng.integers(128, 256, size=600)
    return found


def dataset() -> Dataset:
    """Rows of 64 bytes, shuffled; a document goes on in the next row."""
    return Dataset(documents(), seed=1).shuffle().pack(LENGTH)


class Training:
    """Model, optimizer and data: all that a checkpoint has to hold."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(1)  # so small a model is slower on many
        layers = (torch.nn.Embedding(256, 64), torch.nn.Linear(64, 128), torch.nn.ReLU())
        self.model = torch.nn.Sequential(*layers, torch.nn.Linear(128, 256))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)
        self.loader = Loader(dataset(), 32, feed=TorchFeed())
        self.saved: dict[int, Any] = {}

    def losses(self, tokens: torch.Tensor) -> torch.Tensor:
        """The mean loss of each row, float32[32]."""
        logits = self.model(tokens[:, :-1]).transpose(1, 2)
        return torch.nn.functional.cross_entropy(logits, tokens[:, 1:], reduction="none").mean(1)

    def run(self, folder: str) -> None:
        """Train up to step STEPS from where the state stands."""
        with Journal(folder, self.loader) as journal:
            for step in range(self.loader.step, STEPS):
                if step % SAVE_EVERY == 0:
                    self.saved[step] = copy.deepcopy(self.parts())
                self.optimizer.zero_grad()
                loss = self.losses(next(self.loader)["tokens"]).mean()
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimizer.step()
                journal.log(loss=loss.detach(), grad_norm=norm)

    def parts(self) -> tuple[Any, Any, Any]:
        """The states of all parts."""
        states = self.model.state_dict(), self.optimizer.state_dict(), self.loader.state_dict()
        return copy.deepcopy(states)

    def go_back(self, step: int) -> None:
        """Stand at a saved step again."""
        model, optimizer, data = copy.deepcopy(self.saved[step])
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        self.loader.load_state_dict(data)


def worst(folder: str) -> tuple[int, float]:
    """The step of the largest spike and its score; (-1, 0) where there is none."""
    seen = Run(folder).columns()
    spikes = find_spikes(seen["step"], {k: seen[k] for k in ("loss", "grad_norm")}, threshold=8)
    return max(((s.peak, s.score or np.inf) for s in spikes), key=lambda s: s[1], default=(-1, 0.0))


def main() -> None:
    with contextlib.ExitStack() as stack:
        kept = sys.argv[1] if len(sys.argv) > 1 else None
        folder = kept or stack.enter_context(tempfile.TemporaryDirectory())
        training = Training()
        training.run(folder)
        step, score = worst(folder)
        print(f"spike at step {step}, z {score:.0f}   (python -m pipeline spikes {folder})")

        before = step // SAVE_EVERY * SAVE_EVERY
        training.go_back(before)
        with torch.no_grad():  # which rows are odd to the parameters before the spike
            rows = training.losses(training.loader[step]["tokens"]).numpy()
        origin = training.loader.where(step)[int(rows.argmax())]
        bad = max(origin.segments, key=lambda s: s.stop - s.start).row
        print(f"row {rows.argmax()}: loss {rows.max():.1f}, others {np.median(rows):.1f}")
        print(f"record {bad.record} of {bad.file}")

        training.loader.skip(records=[bad.record])
        training.run(folder)  # the steps since then stand there twice; the last of them count
        again, score = worst(folder)
    if bad.record != BAD or again >= before:
        sys.exit(f"not mended: record {bad.record}, spike at {again} (z {score:.0f})")
    print(f"trained again from step {before} without it: no spike")


if __name__ == "__main__":
    main()
