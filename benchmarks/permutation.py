"""What an index of a Permutation costs beside NumPy's and Grain's, and how random orders are."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.debug.audit import Permute, Report, audit
from pipeline.sampling.permutation import Permutation
from pipeline.seeds import derive_seed

SIZES = [5, 4096, 4097, 65_537, 1_000_003, 10**9, 2**48]
CALLS = [1, 1024, 65_536]
FIGURES = [
    "bits: linear",
    "bits: avalanche",
    "residues: mod 16",
    "residues: mod 61",
    "residues: 16 parts of n",
    "strides: 2^0, parts",
    "strides: 2^0, mod 16",
    "neighbours: correlation",
    "mixing: gaps in a batch (log2)",
    "seeds: matches (count)",
    "epochs: matches (count)",
    "seeds x epochs: matches (count)",
]
STORED = 1_000_003  # NumPy's is timed at this length alone: it holds all of it


def seconds(f: Callable[[], Any], least: float = 0.05) -> float:
    """The quickest of seven: on a shared machine the others measure the neighbours."""
    f()
    repeats = 1
    while True:
        start = time.perf_counter()
        for _ in range(repeats):
            f()
        if (spent := time.perf_counter() - start) > least / 7:
            break
        repeats *= 2
    best = spent / repeats
    for _ in range(6):
        start = time.perf_counter()
        for _ in range(repeats):
            f()
        best = min(best, (time.perf_counter() - start) / repeats)
    return best


def grain_shuffle() -> Callable[[int, int, int], int] | None:
    """Grain's index_shuffle, one index a call, if Grain is installed."""
    try:
        module = import_module(
            "grain._src.python.experimental.index_shuffle.python.index_shuffle_module"
        )
    except ImportError:
        return None
    return lambda index, n, seed: module.index_shuffle(index, n - 1, seed, 4)


def print_calls(numpy_ns: float) -> None:
    print(f"{'n':>16} {'a call of':>10} {'us a call':>10} {'ns an index':>12} {'x numpy':>8}")
    rng = np.random.default_rng(0)
    for n in SIZES:
        order = Permutation(n, derive_seed(0))
        for m in CALLS:
            x: Int64s = rng.integers(n, size=m)
            spent = seconds(lambda order=order, x=x: order(x))
            ns = spent / m * 1e9
            print(f"{n:>16} {m:>10} {spent * 1e6:>10.1f} {ns:>12.1f} {ns / numpy_ns:>8.2f}")


def print_making() -> None:
    # every key is new, so that no cache helps; the one index is what makes the table
    print(f"\n{'n':>16} {'us to make and ask one index':>30}")
    one = np.zeros(1, np.int64)
    for n in [5, 256, 4096, 4097, 2**48]:
        keys = iter(range(1 << 40))
        spent = seconds(lambda n=n, keys=keys: Permutation(n, next(keys))(one))
        print(f"{n:>16} {spent * 1e6:>30.1f}")


def print_audits(n: int = STORED) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    weak = import_module("tests.sampling.weak")  # the negative control

    def ours(seed: int, epoch: int) -> Callable[[Int64s], Int64s]:
        return Permutation(n, derive_seed(seed, "shuffle", epoch))

    orders: dict[str, Permute] = {
        "true random": weak.true_random(n),
        "ours": ours,
        "affine Feistel": weak.affine_feistel(n),
    }
    if (grain := grain_order(n)) is not None:
        orders["grain"] = grain
    reports = {name: audit(order, n, batch=256) for name, order in orders.items()}
    print(f"\naudit at n={n}, batches of 256: each figure beside true random orders' (z)")
    print(f"{'':<32}" + "".join(f"{name:>22}" for name in reports))
    for figure in FIGURES:
        cells = [_cell(report, figure) for report in reports.values()]
        print(f"{figure:<32}" + "".join(f"{cell:>22}" for cell in cells))
    counts = [f"{len(r.failed)} of {len(r.figures)}" for r in reports.values()]
    print(f"{'weak figures':<32}" + "".join(f"{count:>22}" for count in counts))


def _cell(report: Report, name: str) -> str:
    found = [figure for figure in report.figures if figure.name == name]
    return f"{found[0].value:.3f} ({found[0].z:+.1f})" if found else "no bijection"


def grain_order(n: int) -> Permute | None:
    """Grain's orders, each under a key of its own."""
    if (shuffle := grain_shuffle()) is None:
        return None

    def permute(seed: int, epoch: int) -> Callable[[Int64s], Int64s]:
        def order(positions: Int64s) -> Int64s:
            return np.array([shuffle(i, n, seed * 1000 + epoch) for i in positions.tolist()])

        return order

    return permute


def main() -> None:
    numpy_s = seconds(lambda: np.random.default_rng(0).permutation(STORED))
    numpy_ns = numpy_s / STORED * 1e9
    print(f"numpy Generator.permutation({STORED}): {numpy_ns:.1f} ns an index, 8 bytes each kept")
    if (shuffle := grain_shuffle()) is not None:
        grain_ns = seconds(lambda: shuffle(12345, STORED, 7)) * 1e9
        print(f"grain index_shuffle({STORED}): {grain_ns:.1f} ns an index, one index a call")
    print_calls(numpy_ns)
    print_making()
    print_audits()


if __name__ == "__main__":
    main()
