"""The same data in three kinds of loops, each in processes of its own.

Run as a script: python loops.py KIND FOLDER STEPS RANK RANKS PORT; KIND is torch, jax or numpy.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from pipeline import Dataset, Loader, mix
from pipeline.debug.journal import Journal

ROWS = 8


def _tokens(text: str) -> dict[str, Any]:
    return {"tokens": np.frombuffer(text.encode(), np.uint8).astype(np.int64)}


def _crop(row: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    tokens = row["tokens"]
    start = int(rng.integers(0, max(1, len(tokens) // 2)))
    return {"tokens": tokens[start:]}


def _part(name: str, n: int) -> Dataset:
    texts = [f"{name} {i} " * (3 + i % 5) for i in range(n)]
    chain = Dataset(texts, seed=3).shuffle().map(_tokens).random_map(_crop)
    return chain.pack({"tokens": 48}, how="first_fit").repeat()


def build() -> Dataset:
    """Shuffle, crop, pack and mix."""
    parts = {"news": _part("news", 300), "code": _part("code", 90)}
    return mix(parts, {"news": 3, "code": 1}, stop="never").lanes(4)


def _one_token(row: dict[str, Any]) -> dict[str, Any]:
    tokens = row["tokens"].copy()
    if bytes(tokens[:8].astype(np.uint8)) == b"code 41 ":
        tokens[20] = 0  # behind where a crop may begin
    return {"tokens": tokens}


def build_changed() -> Dataset:
    """The same, but for one token of one record."""
    texts = [f"code {i} " * (3 + i % 5) for i in range(90)]
    chain = Dataset(texts, seed=3).shuffle().map(_tokens).map(_one_token).random_map(_crop)
    code = chain.pack({"tokens": 48}, how="first_fit").repeat()
    parts = {"news": _part("news", 300), "code": code}
    return mix(parts, {"news": 3, "code": 1}, stop="never").lanes(4)


def train(loader: Loader, folder: str, steps: int, loss: Any, data: str) -> None:
    """The loop: a loss that is nothing but a sum, on whatever device the batch lies."""
    with loader, Journal(folder, loader, data=data) as journal:
        for _ in range(steps):
            batch = next(loader)
            journal.log(loss=loss(batch["tokens"]), grad_norm=1.0)


def _torch(folder: str, steps: int, rank: int, ranks: int, port: int, data: str) -> None:
    import torch.distributed as dist

    from pipeline import TorchFeed

    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=ranks)
    loader = Loader(build(), ROWS, feed=TorchFeed(), workers=3)
    train(loader, folder, steps, lambda x: x.float().mean(), data)
    dist.destroy_process_group()


def _jax(folder: str, steps: int, rank: int, ranks: int, port: int, data: str) -> None:
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from pipeline import JaxFeed

    jax.config.update("jax_platforms", "cpu")
    jax.distributed.initialize(f"127.0.0.1:{port}", ranks, rank)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    feed = JaxFeed(NamedSharding(mesh, PartitionSpec("data")))
    loader = Loader(build(), ROWS, feed=feed)
    own = lambda x: x.addressable_data(0).mean()  # noqa: E731
    train(loader, folder, steps, own, data)
    jax.distributed.shutdown()


def _numpy(folder: str, steps: int, rank: int, ranks: int, port: int, data: str) -> None:
    dataset = build_changed() if data.endswith("_changed") else build()
    train(Loader(dataset, ROWS), folder, steps, np.mean, data)


if __name__ == "__main__":
    kind, where = sys.argv[1:3]
    n, me, many, at = map(int, sys.argv[3:7])
    {"torch": _torch, "jax": _jax, "numpy": _numpy}[kind](where, n, me, many, at, sys.argv[7])
