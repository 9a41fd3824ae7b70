"""How fast packing is, and how much of its rows is padding.

Log-normal documents, about 500 tokens each on average, into rows of 2,048.

    python benchmarks/pack.py
"""

from __future__ import annotations

import time

import numpy as np

from pipeline.block import Block, Columns, Origin
from pipeline.transforms import Pack
from pipeline.transforms.packers import HOWS
from pipeline.types import Component, Site

DOCUMENTS, MEAN, SIGMA, LENGTH = 1 << 15, 500, 1.0, 2048


def make_documents() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(np.log(MEAN) - SIGMA**2 / 2, SIGMA, DOCUMENTS).astype(np.int64) + 1
    tokens = rng.integers(1, 50_000, int(sizes.sum()), dtype=np.int32)
    return np.split(tokens, np.cumsum(sizes)[:-1])


def measure(docs: list[np.ndarray], how: str, block: int) -> str:
    """One line: rows, documents and tokens a second, and the share of padding."""
    site = Site(0, (), (Component((), Columns(np.arange(1))),), "pack")
    stage = Pack(LENGTH, how, block)
    record = np.arange(len(docs))
    origin = Origin.of_records(0, np.zeros_like(record), record)
    blocks = [
        Block(docs[at : at + block], origin.take(record[at : at + block]))
        for at in range(0, len(docs), block)
    ]
    started = time.perf_counter()
    rows = sum(len(stage.apply(b, site)) for b in blocks)
    seconds = time.perf_counter() - started
    tokens = sum(map(len, docs))
    return (
        f"{how:>10} {block:>6} {rows / seconds:>10,.0f} {len(docs) / seconds:>12,.0f} "
        f"{tokens / seconds / 1e6:>10,.0f} {1 - tokens / (rows * LENGTH):>9.2%}"
    )


def main() -> None:
    docs = make_documents()
    print(f"{'how':>10} {'block':>6} {'rows/s':>10} {'documents/s':>12} {'Mtokens/s':>10} padding")
    for how in HOWS:
        for block in (64, 256, 1024):
            print(measure(docs, how, block), flush=True)


if __name__ == "__main__":
    main()
