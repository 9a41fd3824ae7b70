"""Where records stand in one epoch's order of a dataset: the inverse of each order and root."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.block import Int64s
from pipeline.cache import Cached
from pipeline.chain import Chain, Leaf, Path, Stage, as_order
from pipeline.mixes import Mix
from pipeline.packing import PackedRoot
from pipeline.roots import Concatenation, Zip
from pipeline.sampling.repeat import Repeat
from pipeline.types import ENDLESS, At, Order, Site

Span = tuple[str, int, int]  # component, first record, end
NONE = np.zeros(0, np.int64)
TURNS = 1 << 16  # epochs of a part that are looked through at most


class NoInverseError(Exception):
    """An order or root says only which row stands where, not where a row stands."""


def positions(
    chain: Chain, order: int, low: int, high: int, spans: list[Span], path: Path = ()
) -> Int64s:
    """Where records stand in one epoch's order of a chain, at least those in [low, high).

    Args:
        chain: an indexed one.
        order: the epoch whose order holds.
        low, high: of the epoch's positions.
        spans: the records.
        path: names that lead to the chain.

    Raises:
        NoInverseError: an order of the chain has no inverse, or too many epochs would be tried.
    """
    sites = chain.sites(path)

    def at(level: int, order: int, low: int, high: int) -> Int64s:
        if level == 0:
            return _in_root(chain, order, low, high, spans, path)
        stage, n = chain.stages[level - 1], chain.lengths[level - 1]
        known = as_order(stage)
        if known is None or (isinstance(stage, Repeat) and n == ENDLESS):
            return at(level - 1, order, low, high)
        if isinstance(stage, Repeat):
            times = stage.epochs or 1 << 32
            turns = _turns(low, high, n)
            parts = [t * n + at(level - 1, order * times + t, 0, n) for t in turns]
            return np.concatenate([NONE, *parts])
        site = sites[level - 1]
        beneath = int(known.resolve(_probe(order), n, site).order[0])
        return _above(stage, at(level - 1, beneath, *_reach(known, low, high, n)), order, n, site)

    return at(chain.split, order, low, high)


def _above(stage: Stage, index: Int64s, order: int, n: int, site: Site) -> Int64s:
    above = getattr(stage, "above", None)
    found = None if above is None else above(index, order, n, site)
    if found is None:
        raise NoInverseError
    return found


def _reach(order: Order, low: int, high: int, n: int) -> tuple[int, int]:
    # of an endless dataset only a slice is ever asked for: how far that reaches
    touched = getattr(order, "touched", None)
    return (0, touched(high, n)) if n == ENDLESS and touched else (0, n)


def _turns(low: int, high: int, n: int) -> range:
    turns = range(low // n, -(-high // n))
    if len(turns) > TURNS:
        raise NoInverseError
    return turns


def _probe(order: int) -> At:
    return At(*(np.full(1, v, np.int64) for v in (order, order, 0)))


def _in_root(
    chain: Chain, order: int, low: int, high: int, spans: list[Span], path: Path
) -> Int64s:
    root: Any = chain.root
    if isinstance(root, Leaf):
        runs = [np.arange(start, stop) for name, start, stop in spans if name == "/".join(path)]
        return np.concatenate([NONE, *runs])
    if isinstance(root, Cached):
        return positions(root.chain, order, low, high, spans, path)
    if isinstance(root, PackedRoot):
        documents = positions(root.documents, order, 0, root.documents.length, spans, path)
        return root.rows_of(documents, order, path)
    spans = [s for s in spans if s[0].startswith("/".join((*path, "")))]
    if not spans:
        return NONE
    if isinstance(root, Mix):
        return _in_mix(root, order, low, high, spans, path)
    parts = [NONE]
    for name, part in root.chains.items():
        if isinstance(root, Zip):
            parts.append(positions(part, order, low, high, spans, (*path, name)))
        elif isinstance(root, Concatenation):
            if part.length:
                index = positions(part, order, 0, part.length, spans, (*path, name))
                parts.append(root.position(name, index))
        else:
            raise NoInverseError
    return np.unique(np.concatenate(parts))


def _in_mix(mix: Mix, order: int, low: int, high: int, spans: list[Span], path: Path) -> Int64s:
    found: list[int] = []
    for name, part in mix.chains.items():
        first, last = mix.drawn(name, order, low, high)
        if first == last or not any(_within(s, (*path, name)) for s in spans):
            continue
        for turn in _turns(first, last, part.length):
            begin = turn * part.length
            ends = max(0, first - begin), min(part.length, last - begin)
            index = positions(part, turn, *ends, spans, (*path, name))
            drawn = index[(index >= ends[0]) & (index < ends[1])] + begin
            found += [mix.row(name, order, given) for given in drawn.tolist()]
    return np.array(found, np.int64)


def _within(span: Span, path: Path) -> bool:
    head = "/".join(path)
    return span[0] == head or span[0].startswith(head + "/")
