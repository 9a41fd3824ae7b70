"""In which steps records appeared: by the inverse of each order, or by looking at every row."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import numpy as np

from pipeline.block import Int64s
from pipeline.chain import Chain, Leaf, Path, as_order
from pipeline.exclusions import Exclusions
from pipeline.roots import Concatenation, Zip
from pipeline.sampling.repeat import Repeat
from pipeline.streams import Stream
from pipeline.types import ENDLESS, At

FEW = 1 << 12  # rows an epoch up to which looking at every row is as fast
Span = tuple[str, int, int]  # component, first record, end


def found_steps(stream: Stream, chain: Chain, spans: list[Span], within: range) -> list[int]:
    """Steps of a range whose batches hold one of the records.

    Args:
        stream: whose steps.
        chain: of its dataset.
        spans: the records.
        within: the steps to look at.
    """
    records = sum(stop - start for _, start, stop in spans)
    if stream.rows_of is not None and chain.length > FEW and records <= FEW and len(within):
        try:
            return _by_inverse(stream.rows_of, chain, spans, within)
        except _NoInverseError:
            pass
    wanted = Exclusions(chain.root.components(()), [(0, name, ((a, b),)) for name, a, b in spans])
    hits = [
        steps[wanted.among(origin, 0)]
        for steps, origin in stream.origins(within.start, within.stop)
    ]
    return np.unique(np.concatenate(hits)).tolist() if hits else []


class _NoInverseError(Exception):
    """An order or root says only which row stands where, not where a row stands."""


def _by_inverse(
    rows_of: Callable[[int], tuple[int, int]], chain: Chain, spans: list[Span], within: range
) -> list[int]:
    first, last = rows_of(within.start)[0], rows_of(within[-1])[1]
    n, found = chain.length, list[Int64s]()
    for turn in range(first // n, -(-last // n)):
        low, high = max(first - turn * n, 0), min(last - turn * n, n)
        found += [turn * n + _positions(chain, turn, low, high, spans, ())]
    rows = np.unique(np.concatenate(found))
    rows = rows[(rows >= first) & (rows < last)].tolist()
    # rows of steps rise: the last step that begins at or before a row, if it holds the row
    steps = [within[bisect_right(within, row, key=lambda k: rows_of(k)[0]) - 1] for row in rows]
    return sorted({k for k, row in zip(steps, rows, strict=True) if row < rows_of(k)[1]})


def _positions(
    chain: Chain, order: int, low: int, high: int, spans: list[Span], path: Path
) -> Int64s:
    """Where records stand in one epoch's order of a chain, at least those in [low, high)."""
    sites = chain.sites(path)

    def at(level: int, order: int, low: int, high: int) -> Int64s:
        if level == 0:
            return _in_root(chain, order, spans, path)
        stage, n = as_order(chain.stages[level - 1]), chain.lengths[level - 1]
        if stage is None or (isinstance(stage, Repeat) and n == ENDLESS):
            return at(level - 1, order, low, high)
        if isinstance(stage, Repeat):
            times, turns = stage.epochs or 1 << 32, range(low // n, -(-high // n))
            parts = [turn * n + at(level - 1, order * times + turn, 0, n) for turn in turns]
            return np.concatenate([np.zeros(0, np.int64), *parts])
        above = getattr(stage, "above", None)
        if above is None:
            raise _NoInverseError
        probe = At(*(np.full(1, v, np.int64) for v in (order, order, 0)))
        beneath = int(stage.resolve(probe, n, sites[level - 1]).order[0])
        found = above(at(level - 1, beneath, 0, n), order, n, sites[level - 1])
        if found is None:
            raise _NoInverseError
        return found

    return at(chain.split, order, low, high)


def _in_root(chain: Chain, order: int, spans: list[Span], path: Path) -> Int64s:
    root = chain.root
    if isinstance(root, Leaf):
        runs = [np.arange(start, stop) for name, start, stop in spans if name == "/".join(path)]
        return np.concatenate([np.zeros(0, np.int64), *runs])
    if isinstance(root, Zip):  # a row's provenance is the first's
        name, first = next(iter(root.chains.items()))
        return _positions(first, order, 0, first.length, spans, (*path, name))
    if not isinstance(root, Concatenation):
        raise _NoInverseError
    found, begin = [np.zeros(0, np.int64)], 0
    for name, part in root.chains.items():
        if part.length:
            found.append(begin + _positions(part, order, 0, part.length, spans, (*path, name)))
        begin += part.length
    return np.concatenate(found)
