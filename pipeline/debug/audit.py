"""Does a shuffle look random? Its figures beside those of true random permutations.

Each statistic is taken on many orders and on many drawn by NumPy's Generator, which are the
yardstick: the verdict needs no theory of how a statistic is distributed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s
from pipeline.errors import BatchError, ChainError

Permute = Callable[[int, int], Callable[[Int64s], Int64s]]
Floats = NDArray[np.floating[Any]]
Samples = dict[str, list[float]]

POWERS: Final = (2, 4, 8, 16, 32, 64)
PRIMES: Final = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61)
Z_LIMIT: Final = 5.0  # 100 Gaussian figures pass it by chance once in 17,000 audits
WORST_LIMIT: Final = 12.0  # squared ones have long tails
BASE: Final = 256  # positions whose single bits are flipped


@dataclass(frozen=True, slots=True)
class Figure:
    """One statistic of the audited orders beside that of true random ones.

    Attributes:
        name: family and statistic, as in "residues: mod 16".
        value, expected: its mean over our orders, and over true random ones.
        z: their difference in standard errors.
        worst, usual: the farthest single order or pair of ours, and of true random ones, from
            `expected`, in standard deviations of the true random ones.
    """

    name: str
    value: float
    expected: float
    z: float
    worst: float
    usual: float

    @property
    def ok(self) -> bool:
        return abs(self.z) <= Z_LIMIT and self.worst <= max(WORST_LIMIT, 3 * self.usual)

    def __str__(self) -> str:
        return (
            f"{self.name:<32} {self.value:>10.4f} {self.expected:>10.4f} {self.z:>8.1f} "
            f"{self.worst:>8.1f} {self.usual:>8.1f}  {'ok' if self.ok else 'FAILED'}"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What `audit` found; prints as a table.

    Attributes:
        n, batch, orders: what was audited, and how many orders were looked at.
        bijective: all that was seen lay in [0, n), no value twice in an order.
        figures: one for each statistic; none of what is no bijection.
    """

    n: int
    batch: int
    orders: int
    bijective: bool
    figures: tuple[Figure, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing tells the orders from true random ones."""
        return self.bijective and not self.failed

    @property
    def failed(self) -> tuple[Figure, ...]:
        return tuple(figure for figure in self.figures if not figure.ok)

    def __str__(self) -> str:
        title = f"{self.orders} orders of n={self.n}, batches of {self.batch}: "
        if not self.bijective:
            return title + "FAILED: not a bijection on [0, n)"
        title += "ok" if self.ok else f"FAILED: {len(self.failed)} of {len(self.figures)} figures"
        head = f"{'statistic':<32} {'value':>10} {'random':>10} {'z':>8} {'worst':>8} {'usual':>8}"
        return "\n".join([title, head, *map(str, self.figures)])


def audit(
    permute: Permute,
    n: int,
    *,
    batch: int = 256,
    seeds: Sequence[int] = range(64),
    epochs: int = 16,
    windows: int = 16,
) -> Report:
    """Compare a shuffle with true random permutations: bits, residues, strides, neighbours, orders.

    Looks at `windows` batches and at positions that differ in one bit, so its cost does not grow
    with n. Deterministic: the same orders always get the same figures.

    Args:
        permute: (seed, epoch) to a function from positions int64[m] to records int64[m].
        n: how many positions there are; at least two batches.
        batch: consecutive positions that a batch holds.
        seeds: orders of epoch 0 to compare with each other; at least 16.
        epochs: orders of the first seed to compare; at least 6.
        windows: batches looked at, spread over [0, n).

    Raises:
        BatchError: n holds fewer than two batches.
        ChainError: too few seeds or epochs.

    >>> from pipeline.sampling.permutation import Permutation
    >>> from pipeline.seeds import derive_seed
    >>> shuffle = lambda seed, epoch: Permutation(5_000, derive_seed(seed, epoch))
    >>> audit(shuffle, 5_000, seeds=range(16), epochs=6).ok
    True
    >>> rotate = lambda seed, epoch: lambda i: (i + 997 * seed + epoch) % 5_000
    >>> audit(rotate, 5_000, seeds=range(16), epochs=6).ok
    False
    """
    if batch < 2 or n < 2 * batch:
        raise BatchError(f"an audit looks at two batches or more: {n=} and {batch=}. Lower batch=.")
    if len(seeds) < 16 or epochs < 6:
        raise ChainError(
            f"an audit needs 16 seeds and 6 epochs, got {len(seeds)} and {epochs}. Give more."
        )
    plan = _plan(n, batch, windows)
    names = [(seed, 0) for seed in seeds] + [(seeds[0], epoch) for epoch in range(1, epochs)]
    ours = np.stack([permute(seed, epoch)(plan.positions) for seed, epoch in names])
    if not _bijective(ours, n):
        return Report(n, batch, len(names), False, ())
    found = _statistics(plan, ours, len(seeds))
    expected = _yardstick(n, batch, windows, max(64, len(seeds)), max(16, epochs))
    figures = tuple(_figure(name, found[name], expected[name]) for name in expected)
    return Report(n, batch, len(names), True, figures)


def _bijective(orders: NDArray[np.int64], n: int) -> bool:
    ordered = np.sort(orders, axis=1)
    inside = ordered[:, 0].min() >= 0 and ordered[:, -1].max() < n
    return bool(inside and (np.diff(ordered, axis=1) > 0).all())


@lru_cache(maxsize=16)
def _yardstick(n: int, batch: int, windows: int, seeds: int, epochs: int) -> Samples:
    rng = np.random.default_rng(n)
    plan = _plan(n, batch, windows)
    m = len(plan.positions)
    random = np.stack([rng.choice(n, m, replace=False) for _ in range(seeds + epochs - 1)])
    return _statistics(plan, random, seeds)


def _figure(name: str, ours: list[float], random: list[float]) -> Figure:
    a, b = np.array(ours), np.array(random)
    center, spread = b.mean(), max(b.std(ddof=1), 1e-12)
    shrink = np.sqrt(1 / len(a) + 1 / len(b))
    error = spread * shrink
    if name.endswith("(count)"):
        # rare events: neither a few nor their absence from the yardstick is an alarm
        error = max(spread, np.sqrt(np.concatenate([a, b]).mean()), len(a) ** -0.5)
        error, spread = error * shrink, max(spread, 1.0)
    worst, usual = (float(np.abs(v - center).max() / spread) for v in (a, b))
    return Figure(
        name, float(a.mean()), float(center), float((a.mean() - center) / error), worst, usual
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which positions to look at; all else indexes into `positions`, rising int64[m].

    windows: [w, batch], consecutive positions. low, high: [bits][k], positions that differ in
    that bit alone.
    """

    n: int
    positions: Int64s
    windows: Int64s
    low: list[Int64s]
    high: list[Int64s]

    @property
    def bits(self) -> int:
        return (self.n - 1).bit_length()


def _plan(n: int, batch: int, windows: int) -> _Plan:
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
    return _Plan(n, positions, at[0], at[1 : bits + 1], at[bits + 1 :])


def _statistics(plan: _Plan, orders: NDArray[np.int64], seeds: int) -> Samples:
    samples: Samples = {}
    matrices: list[Floats] = []
    x = _standard_bits(plan.positions[plan.windows.ravel()], plan.n)
    for order in orders:
        y = _standard_bits(order, plan.n)
        # correlation of every bit of the position with every bit of the record, times root m
        matrices.append(x.T @ y[plan.windows.ravel()] / np.sqrt(len(x)))
        for name, value in _of_one(plan, order, matrices[-1], _avalanche(plan, y)):
            samples.setdefault(name, []).append(value)
    # a leaning that many orders share, be it too small to see in one
    samples["bits: shared by orders"] = [float((a * b).mean()) for a, b in pairwise(matrices)]
    shown = orders[:, plan.windows.ravel()]
    first, others = shown[:seeds], shown[seeds:]
    samples |= _between("seeds", plan, first, np.triu_indices(seeds, 1))
    same_seed = np.concatenate([first[:1], others])
    samples |= _between("epochs", plan, same_seed, np.triu_indices(len(same_seed), 1))
    crossed = np.meshgrid(np.arange(1, seeds), np.arange(seeds, len(shown)))
    return samples | _between("seeds x epochs", plan, shown, tuple(c.ravel() for c in crossed))


def _of_one(
    plan: _Plan, order: Int64s, matrix: Floats, flips: Floats
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


def _unevenness(classes: Int64s, m: int) -> float:
    # chi-square over its degrees of freedom, a row of `classes` a batch: about 1 if random
    rows, size = classes.shape
    cells = (classes + m * np.arange(rows)[:, None]).ravel()
    counts = np.bincount(cells, minlength=rows * m)
    return float(((counts**2).sum() * m / (rows * size) - size) / (m - 1))


def _standard_bits(values: Int64s, n: int) -> Floats:
    # as [m, bits], of mean 0 and variance 1 over [0, n); bits that are hardly ever set are left out
    columns: list[Floats] = []
    for bit in range((n - 1).bit_length()):
        half = 1 << bit
        p = (n // (2 * half) * half + max(0, n % (2 * half) - half)) / n
        if p > 1 / 16:
            levels = np.array([-p, 1 - p]) / np.sqrt(p * (1 - p))
            columns.append(levels.astype(np.float32)[values >> bit & 1])
    return np.stack(columns, axis=1)


def _avalanche(plan: _Plan, bits: Floats) -> Floats:
    # does a record's bit depend on whether one bit of its position is flipped?
    rows = [
        np.einsum("ij,ij->j", bits[low], bits[high]) / np.sqrt(max(1, len(low)))
        for low, high in zip(plan.low, plan.high, strict=True)
    ]
    return np.stack(rows)


def _strides(plan: _Plan, order: Int64s, shown: Int64s) -> Iterator[tuple[str, float]]:
    for bit in range(plan.bits):
        near = 1 << bit < shown.shape[1]
        a = shown[:, : -(1 << bit)] if near else order[plan.low[bit]][None]
        b = shown[:, 1 << bit :] if near else order[plan.high[bit]][None]
        if a.shape[1] < 32:  # too few positions have this bit
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


def _standard(values: Int64s, n: int) -> Floats:
    return (values - (n - 1) / 2) / np.sqrt((n**2 - 1) / 12)


def _signed(name: str, value: float) -> Iterator[tuple[str, float]]:
    # a leaning to one side, and one whose side changes from order to order
    yield name, value
    yield f"{name}, squared", value**2


def _between(family: str, plan: _Plan, orders: Int64s, pairs: tuple[Any, ...]) -> Samples:
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


def _overlap(plan: _Plan, a: Int64s, b: Int64s) -> float:
    # records that the same batch holds in both orders
    batches = np.repeat(np.arange(len(plan.windows)), plan.windows.shape[1])
    cells = [value * len(plan.windows) + batches for value in (a, b)]
    return float(len(np.intersect1d(*cells, assume_unique=True)))
