"""What an index of a Permutation costs, beside drawing and indexing a stored permutation."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.sampling.permutation import Permutation
from pipeline.seeds import derive_seed

SIZES = [5, 4096, 4097, 65_537, 1_000_003, 10**9, 2**48]
CALLS = [1, 1024, 65_536]
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


def grain_shuffle() -> Callable[[int, int], None] | None:
    """Grain's index_shuffle, one index a call, if Grain is installed."""
    try:
        module = import_module(
            "grain._src.python.experimental.index_shuffle.python.index_shuffle_module"
        )
    except ImportError:
        return None
    return lambda index, n: module.index_shuffle(index, max_index=n - 1, seed=7, rounds=4)


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


def main() -> None:
    numpy_s = seconds(lambda: np.random.default_rng(0).permutation(STORED))
    numpy_ns = numpy_s / STORED * 1e9
    print(f"numpy Generator.permutation({STORED}): {numpy_ns:.1f} ns an index, 8 bytes each kept")
    if (shuffle := grain_shuffle()) is not None:
        grain_ns = seconds(lambda: shuffle(12345, STORED)) * 1e9
        print(f"grain index_shuffle({STORED}): {grain_ns:.1f} ns an index, one index a call")
    print_calls(numpy_ns)
    print_making()


if __name__ == "__main__":
    main()
