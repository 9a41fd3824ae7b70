"""How fast packing is and how much of its rows is padding; beside grain's packers, if installed.

Documents, into rows of 2,048: log-normal ones of about 500 tokens, and passages of three sentences
of the harness's corpus as bytes. Longer ones are cut to 2,048 for all that keep documents whole,
since grain refuses them. Rows are packed rows. "alone" is the packer on documents in memory, a
block (ours) or a row (grain's) at a time; "loaded" goes on to batches of 64. Each figure is the
median of several runs, taken in turn in one process, with glibc told to keep what is freed, as in
our workers.

    python benchmarks/pack.py
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import Dataset, Loader, ParquetSource
from pipeline.block import Block, Columns, Origin
from pipeline.transforms import Pack
from pipeline.transforms.packers import plan
from pipeline.types import Component, Site

DOCUMENTS, MEAN, SIGMA, LENGTH = 1 << 15, 500, 1.0, 2048
BLOCK, BATCH, RUNS = 256, 64, 5
CORPUS = Path(__file__).parents[1] / "harness" / "data" / "sotu.parquet"
Documents = list[np.ndarray[Any, Any]]
Run = Callable[[Documents], Iterator[int]]  # numbers of packed rows, as they come


def log_normal() -> Documents:
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(np.log(MEAN) - SIGMA**2 / 2, SIGMA, DOCUMENTS).astype(np.int64) + 1
    tokens = rng.integers(1, 50_000, int(sizes.sum()), dtype=np.int32)
    return np.split(tokens, np.cumsum(sizes)[:-1])


def passages() -> Documents:
    source = ParquetSource(str(CORPUS), columns=["text"])
    texts = Dataset(source).read(np.arange(len(source))).rows()
    cut = [re.split(r"(?<=[.?!]) ", row["text"]) for row in texts]
    parts = [" ".join(s[i : i + 3]).encode() for s in cut for i in range(0, len(s), 3)]
    docs = [np.frombuffer(part, np.uint8).astype(np.int32) for part in parts]
    return [docs[i] for i in np.random.default_rng(0).permutation(len(docs))]


def loaded(how: Any, **options: Any) -> Run:
    def run(docs: Documents) -> Iterator[int]:
        packed = Dataset(docs).pack(LENGTH, how=how, block=BLOCK, **options)
        for batch in Loader(packed, BATCH):
            yield len(batch["tokens"])

    return run


def alone(how: Any, **options: Any) -> Run:
    stage = Pack(LENGTH, how, BLOCK, **options)
    site = Site(0, (), (Component((), Columns(np.arange(1))),), "pack")

    def run(docs: Documents) -> Iterator[int]:
        for at in range(0, len(docs), BLOCK):
            record = np.arange(at, min(at + BLOCK, len(docs)))
            origin = Origin.of_records(0, np.zeros_like(record), record)
            yield len(stage.apply(Block(docs[at : at + BLOCK], origin), site))

    return run


def grains(name: str, batched: bool, **options: Any) -> Run:
    import grain  # pyright: ignore[reportMissingImports]

    packer = getattr(grain.experimental, name)

    def run(docs: Documents) -> Iterator[int]:
        source = grain.MapDataset.source([{"tokens": d} for d in docs])
        rows = source.to_iter_dataset(grain.ReadOptions(num_threads=0))
        packed = packer(rows, length_struct={"tokens": LENGTH}, **options)
        if batched:
            for batch in packed.batch(BATCH, drop_remainder=False):
                yield len(batch["tokens"])
        else:
            yield from (1 for _ in packed)

    return run


def runs(name: str) -> list[Run]:
    """Ours alone, grain's alone, ours loaded, grain's loaded; or ours only."""
    bins: dict[str, Any] = {"num_packing_bins": 64, "shuffle_bins": False}
    peers: dict[str, tuple[str, dict[str, Any]]] = {
        "first_fit": ("FirstFitPackIterDataset", bins),
        "best_fit": ("BestFitPackIterDataset", bins),
        "split": ("ConcatThenSplitIterDataset", {}),
    }
    options = {"cross": False} if name == "whole" else {}
    how = "split" if name == "whole" else name
    mine = [alone(how, **options), loaded(how, **options)]
    if name not in peers or find_spec("grain") is None:
        return mine
    peer, given = peers[name]
    theirs = [grains(peer, batched, **given) for batched in (False, True)]
    return [mine[0], theirs[0], mine[1], theirs[1]]


def timed(run: Run, docs: Documents) -> tuple[int, float]:
    started = time.perf_counter()
    rows = sum(run(docs))
    return rows, time.perf_counter() - started


def compare(corpus: str, docs: Documents) -> None:
    """Lines of rows a second and padding, ours and grain's, for each way to pack."""
    short = [d[:LENGTH] for d in docs]
    print(f"\n{corpus}: {len(docs):,} documents of {np.mean([len(d) for d in docs]):.0f} tokens")
    heads = ("padding", "grain's", "alone/s", "grain's", "ratio", "loaded/s", "grain's", "ratio")
    print(f"{'':>12}" + "".join(f"{head:>10}" for head in heads))
    for name in ("first_fit", "best_fit", "split", "whole"):
        used = docs if name == "split" else short
        tokens = sum(map(len, used))
        each = list(zip(*[[timed(r, used) for r in runs(name)] for _ in range(RUNS)], strict=True))
        padding = [f"{1 - tokens / (found[0][0] * LENGTH):.2%}" for found in each]
        rates = [found[0][0] / statistics.median(s for _, s in found) for found in each]
        if len(each) == 2:
            cells = [padding[0], "", f"{rates[0]:,.0f}", "", "", f"{rates[1]:,.0f}"]
        else:
            cells = padding[:2]
            for a, b in (rates[:2], rates[2:]):
                cells += [f"{a:,.0f}", f"{b:,.0f}", f"{a / b:.1f}"]
        print(f"{name:>12}" + "".join(f"{cell:>10}" for cell in cells), flush=True)


def plans(docs: Documents) -> None:
    """Documents planned a second from their lengths alone, and the padding, by block."""
    sizes = np.array([len(d) for d in docs])
    print("\nplans from lengths alone: documents/s, padding")
    print(f"{'':>30}" + "".join(f"{block:>20}" for block in (64, 256, 1024)))
    for how in ("split", "first_fit", "best_fit"):
        for longest_first in (False, True) if how != "split" else (True,):
            cells: list[str] = []
            for block in (64, 256, 1024):
                started = time.perf_counter()
                rows = sum(
                    plan(sizes[a : a + block], LENGTH, how=how, longest_first=longest_first).rows
                    for a in range(0, len(sizes), block)
                )
                rate = len(sizes) / (time.perf_counter() - started)
                cells.append(f"{rate:>12,.0f} {1 - sizes.sum() / (rows * LENGTH):>7.2%}")
            order = " in order" if how != "split" and not longest_first else ""
            print(f"{how + order:>30}" + "".join(cells), flush=True)


def main() -> None:
    keep = {"MALLOC_TRIM_THRESHOLD_": str(128 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}
    if not keep.items() <= os.environ.items():  # it is read as a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **keep})
    docs = log_normal()
    plans(docs)
    compare("log-normal", docs)
    compare("real passages", passages())


if __name__ == "__main__":
    main()
