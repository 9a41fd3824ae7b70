"""Statistics that tell a shuffle from a random order, from single bits to whole batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s

Floats = NDArray[np.floating[Any]]
Samples = dict[str, list[float]]

POWERS: Final = (2, 4, 8, 16, 32, 64)
PRIMES: Final = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61)
BASE: Final = 256  # positions whose single bits are flipped


@dataclass(frozen=True, slots=True)
class Plan:
    """The positions that an audit examines.

    Attributes:
        n: number of positions in all.
        positions: int64[m], those that are examined; they rise.
        windows: int64[w, batch], consecutive positions, as indices into `positions`.
        low, high: for each bit, pairs of positions that differ in that bit only, as indices.
        parts: the first record of each source.
    """

    n: int
    positions: Int64s
    windows: Int64s
    low: list[Int64s]
    high: list[Int64s]
    parts: tuple[int, ...]

    @property
    def bits(self) -> int:
        return (self.n - 1).bit_length()


def plan_of(n: int, batch: int, windows: int, parts: tuple[int, ...]) -> Plan:
    """Choose the positions to examine; their number does not grow with n."""
    rng = np.random.default_rng(n)
    count = min(windows, n // batch)
    starts = np.sort(rng.choice(n // batch, count, replace=False)) * batch
    spans = starts[:, None] + np.arange(batch)
    base = rng.choice(n, min(BASE, n), replace=False)
    low, high = [], []
    for bit in range((n - 1).bit_length()):
        zero = np.unique(base & ~(1 << bit))
        one = zero | (1 << bit)
        low.append(zero[one < n])
        high.append(one[one < n])
    positions = np.unique(np.concatenate([spans.ravel(), *low, *high]))
    at = [np.searchsorted(positions, p) for p in (spans, *low, *high)]
    bits = len(low)
    return Plan(n, positions, at[0], at[1 : bits + 1], at[bits + 1 :], parts)


def statistics(plan: Plan, orders: NDArray[np.int64], seeds: int) -> Samples:
    """Compute every statistic of some orders: one sample for each order, or for each pair.

    Args:
        plan: the positions at which the orders were evaluated.
        orders: int64[seeds + epochs - 1, m], the records there. The first `seeds` rows are epoch 0
            of as many seeds; the others are further epochs of the first seed.
    """
    samples: Samples = {}
    matrices: list[Floats] = []
    x = _standard_bits(plan.positions[plan.windows.ravel()], plan.n)
    for order in orders:
        y = _standard_bits(order, plan.n)
        # correlation of each bit of the position with each bit of the record, times sqrt(m)
        matrices.append(x.T @ y[plan.windows.ravel()] / np.sqrt(len(x)))
        for name, value in _of_one(plan, order, matrices[-1], _avalanche(plan, y)):
            samples.setdefault(name, []).append(value)
    # a bias that many orders share may be too small to see in one of them
    samples["bits: shared by orders"] = [float((a * b).mean()) for a, b in pairwise(matrices)]
    shown = orders[:, plan.windows.ravel()]
    first, others = shown[:seeds], shown[seeds:]
    samples |= _between("seeds", plan, first, np.triu_indices(seeds, 1))
    same_seed = np.concatenate([first[:1], others])
    samples |= _between("epochs", plan, same_seed, np.triu_indices(len(same_seed), 1))
    crossed = np.meshgrid(np.arange(1, seeds), np.arange(seeds, len(shown)))
    return samples | _between("seeds x epochs", plan, shown, tuple(c.ravel() for c in crossed))


def _of_one(
    plan: Plan, order: Int64s, matrix: Floats, flips: Floats
) -> Iterator[tuple[str, float]]:
    shown = order[plan.windows]
    yield "bits: linear", float((matrix**2).mean())
    yield "bits: linear, worst", float((matrix**2).max())
    yield "bits: avalanche", float((flips**2).mean())
    yield "bits: avalanche, worst", float((flips**2).max())
    for m in POWERS + PRIMES:
        yield f"residues: mod {m}", _unevenness(shown % m, m)
    for parts in (16, 64):
        yield f"residues: {parts} parts of n", _unevenness(shown // -(-plan.n // parts), parts)
    yield from _strides(plan, order, shown)
    yield from _neighbours(plan.n, shown)
    yield from _mixing(plan, shown)


def _unevenness(classes: Int64s, m: int) -> float:
    # chi-square over its degrees of freedom; each row of `classes` is a batch; about 1 if random
    rows, size = classes.shape
    cells = (classes + m * np.arange(rows)[:, None]).ravel()
    counts = np.bincount(cells, minlength=rows * m)
    return float(((counts**2).sum() * m / (rows * size) - size) / (m - 1))


def _standard_bits(values: Int64s, n: int) -> Floats:
    # [m, bits], with mean 0 and variance 1 over [0, n); bits that are rarely set are left out
    columns: list[Floats] = []
    for bit in range((n - 1).bit_length()):
        half = 1 << bit
        p = (n // (2 * half) * half + max(0, n % (2 * half) - half)) / n
        if p > 1 / 16:
            levels = np.array([-p, 1 - p]) / np.sqrt(p * (1 - p))
            columns.append(levels.astype(np.float32)[values >> bit & 1])
    return np.stack(columns, axis=1)


def _avalanche(plan: Plan, bits: Floats) -> Floats:
    # correlation of each bit of the record with itself after one bit of the position is flipped
    rows = [
        np.einsum("ij,ij->j", bits[low], bits[high]) / np.sqrt(max(1, len(low)))
        for low, high in zip(plan.low, plan.high, strict=True)
    ]
    return np.stack(rows)


def _strides(plan: Plan, order: Int64s, shown: Int64s) -> Iterator[tuple[str, float]]:
    for bit in range(plan.bits):
        near = 1 << bit < shown.shape[1]
        a = shown[:, : -(1 << bit)] if near else order[plan.low[bit]][None]
        b = shown[:, 1 << bit :] if near else order[plan.high[bit]][None]
        if a.shape[1] < 32:  # too few positions differ in this bit
            continue
        step = (b - a) % plan.n
        yield f"strides: 2^{bit}, parts", _unevenness(step // -(-plan.n // 16), 16)
        yield f"strides: 2^{bit}, mod 16", _unevenness((b - a) % 16, 16)
        yield f"strides: 2^{bit}, repeated (count)", _repeats(step)


def _neighbours(n: int, shown: Int64s) -> Iterator[tuple[str, float]]:
    a, b = _standard(shown[:, :-1], n), _standard(shown[:, 1:], n)
    yield from _signed("neighbours: correlation", float((a * b).sum() / np.sqrt(a.size)))
    rank = np.argsort(np.argsort(shown, axis=1), axis=1)
    centred = (rank - rank.mean()) / rank.std()
    serial = (centred[:, :-1] * centred[:, 1:]).sum() / np.sqrt(a.size)
    yield from _signed("neighbours: rank", float(serial))
    trend = (centred * centred[0, np.argsort(rank[0])]).sum() / np.sqrt(shown.size)
    yield from _signed("neighbours: trend", float(trend))
    rises = np.diff(shown, axis=1) > 0
    yield "neighbours: rises", float(rises.mean())
    yield "neighbours: turning points", float((rises[:, 1:] != rises[:, :-1]).mean())


def _mixing(plan: Plan, shown: Int64s) -> Iterator[tuple[str, float]]:
    moved = np.abs(shown - plan.positions[plan.windows])
    yield "mixing: way from its place", float(moved.mean() / plan.n)
    gaps = np.diff(np.sort(shown, axis=1), axis=1)
    yield "mixing: gaps in a batch (log2)", float(np.log2(gaps).mean())
    if len(plan.parts) > 1:
        yield "balance: sources in a batch", _imbalance(plan, shown)


def _imbalance(plan: Plan, shown: Int64s) -> float:
    # chi-square of the number of records of each source in a batch, over its degrees of freedom
    sizes = np.diff([*plan.parts, plan.n])
    source = np.searchsorted(plan.parts, shown, side="right") - 1
    rows, m = len(shown), len(sizes)
    cells = (source + m * np.arange(rows)[:, None]).ravel()
    counts = np.bincount(cells, minlength=rows * m).reshape(rows, m)[:, sizes > 0]
    expected = sizes[sizes > 0] * shown.shape[1] / plan.n
    chi = ((counts - expected) ** 2 / expected).sum(axis=1)
    return float(chi.mean() / max(1, len(expected) - 1))


def _standard(values: Int64s, n: int) -> Floats:
    return (values - (n - 1) / 2) / np.sqrt((n**2 - 1) / 12)


def _signed(name: str, value: float) -> Iterator[tuple[str, float]]:
    # the value shows a constant bias; its square shows one whose sign differs between orders
    yield name, value
    yield f"{name}, squared", value**2


def _between(family: str, plan: Plan, orders: Int64s, pairs: tuple[Any, ...]) -> Samples:
    left, right = pairs
    scaled = _standard(orders, plan.n)
    correlation = (scaled @ scaled.T)[left, right] / np.sqrt(orders.shape[1])
    matches = [float((orders[a] == orders[b]).sum()) for a, b in zip(left, right, strict=True)]
    some = list(zip(left, right, strict=True))[:: max(1, len(left) // 256)]
    return {
        f"{family}: correlation": correlation.tolist(),
        f"{family}: correlation, squared": (correlation**2).tolist(),
        f"{family}: matches (count)": matches,
        f"{family}: shift (count)": [_repeats((orders[b] - orders[a]) % plan.n) for a, b in some],
        f"{family}: overlap (count)": [_overlap(plan, orders[a], orders[b]) for a, b in some],
    }


def _repeats(step: Int64s) -> float:
    return float((np.diff(np.sort(step, axis=None)) == 0).sum())


def _overlap(plan: Plan, a: Int64s, b: Int64s) -> float:
    # number of records that are in the same batch in both orders
    batches = np.repeat(np.arange(len(plan.windows)), plan.windows.shape[1])
    cells = [value * len(plan.windows) + batches for value in (a, b)]
    return float(len(np.intersect1d(*cells, assume_unique=True)))
