"""Whether a shuffle looks random: its statistics beside those of truly random permutations.

The same statistics are computed on permutations drawn by NumPy's Generator. They are the reference,
so that the verdict needs no theory of how a statistic is distributed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s
from pipeline.checks import whole
from pipeline.debug.audit.statistics import Samples, plan_of, statistics
from pipeline.errors import BatchError, ChainError

Permute = Callable[[int, int], Callable[[Int64s], Int64s]]

Z_LIMIT: Final = 5.0  # 100 Gaussian figures exceed it by chance once in 17,000 audits
WORST_LIMIT: Final = 12.0  # squared statistics have long tails

_MAIN = (  # what a short report shows: one or two of each family
    "bits: linear",
    "bits: avalanche",
    "bits: shared by orders",
    "residues: mod 16",
    "residues: mod 61",
    "residues: 16 parts of n",
    "strides: 2^0, parts",
    "neighbours: correlation",
    "mixing: way from its place",
    "mixing: gaps in a batch (log2)",
    "balance: sources in a batch",
    "seeds: correlation",
    "epochs: correlation",
    "epochs: matches (count)",
    "epochs: overlap (count)",
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One statistic of the audited orders, beside the same statistic of random ones.

    Attributes:
        name: family and statistic, as in "residues: mod 16".
        value, expected: its mean over the audited orders, and over the random ones.
        z: the difference of the two means in standard errors.
        worst, usual: the largest deviation of a single order, or pair of orders, from `expected`,
            among the audited orders and among the random ones. The unit is the standard deviation
            of the random orders.
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
            f"{self.worst:>8.1f} {self.usual:>8.1f}  {'ok' if self.ok else 'WEAK'}"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What `audit` found; it prints as a table.

    Attributes:
        n, batch, orders: number of positions, batch size, and number of orders examined.
        bijective: all values were in [0, n), and no order had a value twice.
        figures: one for each statistic; empty if the orders are not bijective.
    """

    n: int
    batch: int
    orders: int
    bijective: bool
    figures: tuple[Figure, ...]

    @property
    def ok(self) -> bool:
        """Whether the orders are bijective and no figure tells them from random ones."""
        return self.bijective and not self.failed

    @property
    def failed(self) -> tuple[Figure, ...]:
        return tuple(figure for figure in self.figures if not figure.ok)

    @property
    def weakest(self) -> tuple[Figure, ...]:
        """The failed figures, the most extreme first."""
        return tuple(sorted(self.failed, key=lambda f: -max(abs(f.z), f.worst)))

    @property
    def verdict(self) -> str:
        """The result in one line; the most extreme figure comes first."""
        if not self.bijective:
            return "FAILED: not a bijection on [0, n)"
        if self.ok:
            return "ok"
        weak = self.weakest
        shown = "; ".join(figure.name for figure in weak[:3])
        more = f"; and {len(weak) - 3} more" if len(weak) > 3 else ""
        return f"FAILED: {len(weak)} of {len(self.figures)} figures: {shown}{more}"

    def as_json(self) -> dict[str, Any]:
        """The figures as plain data, with the verdict."""
        figures = [{**asdict(figure), "ok": figure.ok} for figure in self.figures]
        return {**asdict(self), "figures": figures, "ok": self.ok, "verdict": self.verdict}

    def lines(self, *, every: bool = False) -> Iterator[str]:
        """For people: the main figures and the most extreme ones, or all of them."""
        yield f"{self.orders} orders of {self.n:,} rows, batches of {self.batch}: {self.verdict}"
        weakest = {figure.name for figure in self.weakest[:3]}
        shown = [f for f in self.figures if every or f.name in _MAIN or f.name in weakest]
        if not shown:
            return
        titles = [f"{title:>8}" for title in ("z", "worst", "usual")]
        yield f"{'statistic':<32} {'value':>10} {'random':>10} {' '.join(titles)}"
        yield from map(str, shown)
        more = len(self.figures) - len(shown)
        if more:
            yield f"{more} more figures: --all, or --json"

    def __str__(self) -> str:
        return "\n".join(self.lines(every=True))


def audit(
    permute: Permute,
    n: int,
    *,
    batch: int = 256,
    seeds: Sequence[int] = range(64),
    epochs: int = 16,
    windows: int = 16,
    parts: Sequence[int] = (0,),
) -> Report:
    """Compare a shuffle with truly random permutations.

    The statistics cover bits, residues, strides, neighbours, mixing, and how orders relate to each
    other. They are computed on `windows` batches and on positions that differ in one bit, so the
    cost does not grow with n. The same orders always give the same figures.

    Args:
        permute: maps (seed, epoch) to a function from positions int64[m] to records int64[m].
        n: number of positions; at least two batches.
        batch: number of consecutive positions in a batch.
        seeds: whose orders of epoch 0 are compared with each other; at least 16.
        epochs: number of orders of the first seed that are compared; at least 6.
        windows: number of batches examined, spread over [0, n).
        parts: first record of each source, rising from 0. With several sources, their balance
            within a batch is a statistic too.

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
    if whole("batch", batch, 2, BatchError) > n // 2:
        raise BatchError(f"an audit looks at two batches or more: {n=} and {batch=}. Lower batch=.")
    if len(seeds) < 16 or epochs < 6:
        raise ChainError(
            f"an audit needs 16 seeds and 6 epochs, got {len(seeds)} and {epochs}. Give more."
        )
    plan = plan_of(n, batch, windows, tuple(parts))
    names = [(seed, 0) for seed in seeds] + [(seeds[0], epoch) for epoch in range(1, epochs)]
    ours = np.stack([permute(seed, epoch)(plan.positions) for seed, epoch in names])
    if not _bijective(ours, n):
        return Report(n, batch, len(names), False, ())
    found = statistics(plan, ours, len(seeds))
    expected = _yardstick(n, batch, windows, max(64, len(seeds)), max(16, epochs), plan.parts)
    figures = tuple(_figure(name, found[name], expected[name]) for name in expected)
    return Report(n, batch, len(names), True, figures)


def _bijective(orders: NDArray[np.int64], n: int) -> bool:
    ordered = np.sort(orders, axis=1)
    inside = ordered[:, 0].min() >= 0 and ordered[:, -1].max() < n
    return bool(inside and (np.diff(ordered, axis=1) > 0).all())


@lru_cache(maxsize=16)
def _yardstick(
    n: int, batch: int, windows: int, seeds: int, epochs: int, parts: tuple[int, ...]
) -> Samples:
    rng = np.random.default_rng(n)
    plan = plan_of(n, batch, windows, parts)
    m = len(plan.positions)
    random = np.stack([rng.choice(n, m, replace=False) for _ in range(seeds + epochs - 1)])
    return statistics(plan, random, seeds)


def _figure(name: str, ours: list[float], random: list[float]) -> Figure:
    a, b = np.array(ours), np.array(random)
    center, spread = b.mean(), max(b.std(ddof=1), 1e-12)
    shrink = np.sqrt(1 / len(a) + 1 / len(b))
    error = spread * shrink
    if name.endswith("(count)"):
        # rare events: a few of them are no alarm, nor is their absence from the reference
        error = max(spread, np.sqrt(np.concatenate([a, b]).mean()), len(a) ** -0.5)
        error, spread = error * shrink, max(spread, 1.0)
    worst, usual = (float(np.abs(v - center).max() / spread) for v in (a, b))
    return Figure(
        name, float(a.mean()), float(center), float((a.mean() - center) / error), worst, usual
    )
