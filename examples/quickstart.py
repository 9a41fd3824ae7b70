"""The first batches: columns, a shuffle, random augmentation, and a run resumed in the middle."""

from __future__ import annotations

import json

import numpy as np

from pipeline import Dataset, Loader


def add_noise(row: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A random stage: rng is a function of the row's provenance, so noise is the same again."""
    return {**row, "x": row["x"] + rng.normal(size=row["x"].shape).astype(np.float32)}


def dataset() -> Dataset:
    """Ten rows of two columns, shuffled and changed at random."""
    columns = {"x": np.zeros((10, 3), np.float32), "label": np.arange(10)}
    return Dataset(columns, seed=7).shuffle().random_map(add_noise)


def main() -> None:
    ds = dataset()
    loader = Loader(ds, 4)
    print("spec", ds.spec)

    saved = ""
    for epoch in range(loader.epoch, 2):
        for batch in loader:
            print(f"epoch {epoch}  step {loader.step - 1}  labels {batch['label'].tolist()}")
            if loader.step == 4:
                saved = json.dumps(loader.state_dict())

    resumed = Loader(ds, 4)
    resumed.load_state_dict(json.loads(saved))
    print(
        f"resumed at epoch {resumed.epoch}, step {resumed.step}: {next(resumed)['label'].tolist()}"
    )
    print("where step 4's rows come from:")
    print(resumed.where(4))


if __name__ == "__main__":
    main()
