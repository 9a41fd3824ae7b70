"""How fast packing is and how much of its rows is padding; beside grain's packers, if installed.

Documents, into rows of 2,048: log-normal ones of about 500 tokens, and passages of three sentences
of the harness's corpus as bytes. Longer ones are cut to 2,048 for all that keep documents whole,
since grain refuses them. Each line holds medians of several runs, taken in turn; rows are packed
rows, read end to end: from documents in memory to the last batch of 64, in one process.

    python benchmarks/pack.py
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import Dataset, Loader, ParquetSource
from pipeline.transforms.packers import plan

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


def ours(how: Any, **options: Any) -> Run:
    def run(docs: Documents) -> Iterator[int]:
        packed = Dataset(docs).pack(LENGTH, how=how, block=BLOCK, **options)
        for batch in Loader(packed, BATCH):
            yield len(batch["tokens"])

    return run


def grains(name: str, **options: Any) -> Run:
    import grain  # pyright: ignore[reportMissingImports]

    packer = getattr(grain.experimental, name)

    def run(docs: Documents) -> Iterator[int]:
        source = grain.MapDataset.source([{"tokens": d} for d in docs])
        rows = source.to_iter_dataset(grain.ReadOptions(num_threads=0))
        packed = packer(rows, length_struct={"tokens": LENGTH}, **options)
        for batch in packed.batch(BATCH, drop_remainder=False):
            yield len(batch["tokens"])

    return run


def pairs() -> dict[str, tuple[Run, Run | None]]:
    """What is compared: our way, and grain's nearest."""
    has = find_spec("grain") is not None
    bins: dict[str, Any] = {"num_packing_bins": 64, "shuffle_bins": False}
    return {
        "first_fit": (
            ours("first_fit"),
            grains("FirstFitPackIterDataset", **bins) if has else None,
        ),
        "best_fit": (ours("best_fit"), grains("BestFitPackIterDataset", **bins) if has else None),
        "split": (ours("split"), grains("ConcatThenSplitIterDataset") if has else None),
        "split, cross=False": (ours("split", cross=False), None),
    }


def timed(run: Run, docs: Documents) -> tuple[int, float]:
    started = time.perf_counter()
    rows = sum(run(docs))
    return rows, time.perf_counter() - started


def compare(corpus: str, docs: Documents) -> None:
    """Lines of rows a second and padding, ours and grain's, for each way to pack."""
    short = [d[:LENGTH] for d in docs]
    print(f"\n{corpus}: {len(docs):,} documents of {np.mean([len(d) for d in docs]):.0f} tokens")
    print(f"{'':>20} {'rows/s':>9} {'padding':>8} {'grain rows/s':>13} {'padding':>8} {'ratio':>6}")
    for name, both in pairs().items():
        used = docs if name == "split" else short
        tokens = sum(map(len, used))
        runs = [[timed(run, used) for run in both if run] for _ in range(RUNS)]
        shown: list[str] = []
        rates: list[float] = []
        for each in zip(*runs, strict=True):
            rows = each[0][0]
            rates.append(rows / statistics.median(seconds for _, seconds in each))
            padding = 1 - tokens / (rows * LENGTH)
            shown.append(f"{rates[-1]:>{9 if len(rates) == 1 else 13},.0f} {padding:>8.2%}")
        ratio = f"{rates[0] / rates[1]:>6.1f}" if len(rates) == 2 else ""
        print(f"{name:>20} {' '.join(shown)} {ratio}", flush=True)


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
    docs = log_normal()
    plans(docs)
    compare("log-normal", docs)
    compare("real passages", passages())


if __name__ == "__main__":
    main()
