"""How a batch lies in memory: in C order and native bytes, whoever made its rows and how."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipeline import Dataset, Loader, Processes, Threads
from pipeline.block import Block
from pipeline.tree import leaves

from .making import block_of

ENGINES = [0, Threads(2), Processes(1, parent=False)]
ALIGNED = np.dtype([("a", np.int8), ("b", np.float64)], align=True)


def permuted(i: int) -> Any:
    return torch.full((4, 4, 3), float(i)).permute(2, 0, 1)


def padded(i: Any) -> Any:
    return {
        "t": permuted(int(i)),
        "n": permuted(int(i)).numpy(),
        "f": np.asfortranarray([[1, i]] * 3),
    }


DATASETS = {
    "records": Dataset([permuted(i) for i in range(8)]),
    "arrays": Dataset([permuted(i).numpy() for i in range(8)]),
    "map": Dataset(range(8)).map(padded),
    "flat_map": Dataset(range(8)).flat_map(lambda i: [padded(i)]),
    "columns": Dataset({"x": np.asfortranarray(np.ones((8, 4, 5)))}),
    "views": Dataset({"x": np.ones((4, 5, 8)).T, "y": np.ones((8, 6))[:, ::2]}),
    "batched": Dataset({"x": np.ones((8, 4, 5))}).map(
        lambda c: {"x": np.asfortranarray(c["x"])}, batched=True
    ),
    "bytes": Dataset({"x": np.arange(8, dtype=">i4"), "s": np.zeros(8, ALIGNED)}),
    "taken": Dataset({"x": np.asfortranarray(np.ones((8, 4, 5)))}).shuffle(),
}


def layout(batch: Any) -> list[Any]:
    names = ("C_CONTIGUOUS", "ALIGNED", "WRITEABLE")
    return [
        (name, a.dtype, a.shape, a.strides, *(a.flags[flag] for flag in names))
        for name, a in leaves(batch)
    ]


@pytest.mark.long
@pytest.mark.parametrize("name", DATASETS)
def test_a_batch_lies_alike_in_every_engine(name):
    found = []
    for workers in ENGINES:
        with Loader(DATASETS[name], 4, workers=workers) as loader:
            found.append(layout(next(loader)))
    assert found[0] == found[1] == found[2]
    assert all(in_order and aligned and writable for *_, in_order, aligned, writable in found[0])
    assert all(a.dtype.isnative for _, a in leaves(next(Loader(DATASETS[name], 4))))


def stacked(rows: list[Any]) -> Any:
    arrays = np.stack([np.asarray(row) for row in rows])
    tensor = torch.stack([torch.as_tensor(np.asarray(row)) for row in rows])
    return {"numpy": arrays, "torch": tensor.permute(0, 2, 1, 3), "list": [arrays.T, tensor.mT]}


@pytest.mark.parametrize("workers", ENGINES, ids=repr)
def test_so_does_what_collate_returns(workers):
    with Loader(DATASETS["arrays"], 4, workers=workers, collate=stacked) as loader:
        batch = next(loader)
    assert batch["numpy"].flags.c_contiguous
    assert batch["list"][0].flags.c_contiguous
    assert batch["torch"].is_contiguous()
    assert batch["list"][1].is_contiguous()


def test_blocks_end_to_end_keep_their_dtype():
    parts = [block_of({"x": np.zeros(2, ALIGNED), "y": np.zeros(2, ">i4")}) for _ in range(3)]
    tree: Any = Block.concat(parts).values
    assert tree.tree["x"].dtype == ALIGNED
    assert tree.tree["y"].dtype == np.dtype(">i4")
