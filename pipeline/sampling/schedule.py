"""The weights of a mix as integers, and the rows at which they change."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from pipeline.checks import shown, whole
from pipeline.errors import ChainError
from pipeline.sampling.dealing import ROUND
from pipeline.sampling.pattern import Entries, Pattern, pattern
from pipeline.sampling.splits import MOST, Weights

Given = Mapping[str, float] | Sequence[tuple[int, Mapping[str, float]]]


@dataclass(frozen=True)
class Schedule:
    """The weights of named components, and the row from which each set of weights applies.

    Attributes:
        names: the components, in order.
        entries: (first row, weights as integers), rising from row 0. They add up to 65,536 if each
            component has a row of as many; else to 2**30, or less where that is exact.
    """

    names: tuple[str, ...]
    entries: Entries

    @staticmethod
    def of(names: Sequence[str], weights: Given) -> Schedule:
        """The schedule for weights as users give them, checked.

        Raises:
            ChainError: rows do not ascend from 0, names differ, or a weight is not a number from 0
                on.

        >>> Schedule.of(["en", "de"], {"en": 3, "de": 1}).entries
        ((0, (49152, 16384)),)
        """
        entries = _given(weights)
        starts = [start for start, _ in entries]
        if not starts or starts[0] != 0 or sorted(set(starts)) != starts:
            raise ChainError(
                f"mix: the weights' first rows are {shown(starts)}, but they must rise from 0: "
                "[(0, {...}), (5000, {...})]"
            )
        named = {name for _, weights in entries for name in weights}
        lost, unknown = [n for n in names if n not in named], sorted(named - set(names))
        if lost or unknown:
            raise ChainError(
                f"mix: weights name {shown(sorted(named))}, the datasets are {shown(list(names))}. "
                + (f"Give a dataset for {shown(unknown)}. " if unknown else "")
                + (f"Give a weight for {shown(lost)}; 0 means not yet." if lost else "")
            )
        return Schedule(
            tuple(names), tuple((start, _integers(names, weights)) for start, weights in entries)
        )

    @cached_property
    def pattern(self) -> Pattern:
        """Which component gives each row."""
        return pattern(self.entries)

    @cached_property
    def live(self) -> tuple[int, ...]:
        """The components that have a weight at some row."""
        return tuple(
            c for c in range(len(self.names)) if any(weights[c] for _, weights in self.entries)
        )

    def fingerprint(self) -> dict[str, str]:
        """The entries by name; each names just the components that have a weight in it."""
        return {
            f"schedule.{i}": f"{start} {self._text(weights)}"
            for i, (start, weights) in enumerate(self.entries)
        }

    def written(self) -> str:
        """The weights as people write them, as shares that add up to 1."""
        shown = [(start, self._shares(weights)) for start, weights in self.entries[:4]]
        if len(self.entries) == 1:
            return str(shown[0][1])
        return f"{shown}{' …' if len(self.entries) > 4 else ''}"

    def _shares(self, weights: Weights) -> dict[str, float]:
        total, some = sum(weights), list(self._shown(weights).items())[:8]
        return {n: round(w / total, 3) or float(f"{w / total:.1g}") for n, w in some}

    def _shown(self, weights: Weights) -> dict[str, int]:
        return {n: w for n, w in zip(self.names, weights, strict=True) if w}

    def _text(self, weights: Weights) -> str:
        # larger integers without quotes and spaces, so that the state of many datasets stays short
        named = self._shown(weights)
        if sum(weights) == ROUND:
            return json.dumps(named)
        return "/".join(f"{name}={weight}" for name, weight in named.items())


def read_entry(text: str) -> tuple[int, dict[str, int]]:
    """An entry as a fingerprint tells it: its first row, and the weights that are not 0.

    >>> read_entry('0 {"en": 49152, "de": 16384}'), read_entry("8 en=9999999/de=1")
    ((0, {'en': 49152, 'de': 16384}), (8, {'en': 9999999, 'de': 1}))
    """
    start, _, weights = text.partition(" ")
    if weights.endswith("}"):
        return int(start), json.loads(weights)
    named = [part.rpartition("=") for part in weights.split("/")]
    return int(start), {name: int(weight) for name, _, weight in named}


def _given(weights: Any) -> list[tuple[int, Mapping[str, float]]]:
    if isinstance(weights, Mapping):
        return [(0, weights)]
    if not isinstance(weights, Sequence):
        raise ChainError(
            f"mix: weights={shown(weights)}: give {{name: weight}}, or "
            "[(from_row, {name: weight}), …]"
        )
    return [_entry(entry) for entry in weights]


def _entry(entry: Any) -> tuple[int, Mapping[str, float]]:
    try:
        start, weights = entry
        if not isinstance(weights, Mapping):
            raise TypeError
    except (TypeError, ValueError):
        raise ChainError(
            f"mix: {shown(entry)} is no entry of weights. Give {{name: weight}}, or a list of "
            "(from_row, {name: weight})."
        ) from None
    return whole("mix: from_row", start, 0), weights


def _float(weight: Any) -> float:
    # NaN for what is not a number, or is larger than any float
    try:
        return math.nan if isinstance(weight, bool | str) else float(weight)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _integers(names: Sequence[str], weights: Mapping[str, float]) -> Weights:
    for name, weight in weights.items():
        if not 0 <= _float(weight) < math.inf:
            raise ChainError(f"mix: weight {shown(weight)} of {name!r}: give a number from 0 on")
    given = [float(weights.get(name, 0)) for name in names]
    try:
        total = math.fsum(given)
    except OverflowError:
        total = math.inf
    if total == math.inf:
        raise ChainError(
            f"mix: the weights {shown(dict(weights))} add up to more than a float holds: only "
            "their ratios count, so divide them all by one number"
        )
    if not total > 0:
        raise ChainError(f"mix: the weights {shown(dict(weights))} are all 0: raise one")
    shares = _rounded(given, total, ROUND)
    if _lost(given, shares) is not None:
        shares = _whole(given) or _rounded(given, total, MOST)
    if (c := _lost(given, shares)) is not None:
        raise ChainError(
            f"mix: weight {given[c]:g} of {names[c]!r} is {given[c] / total:.2g} of the total "
            f"{total:g}: less than half a row in {MOST}. Give it {total / MOST:.2g} or more, or 0."
        )
    return shares


def _rounded(given: list[float], total: float, rows: int) -> Weights:
    # shares of so many rows, rounded down; what is left over goes to the largest remainders
    exact = [weight / total * rows for weight in given]
    shares = [int(share) for share in exact]
    order = sorted(range(len(exact)), key=lambda c: (shares[c] - exact[c], c))
    for c in order[: rows - sum(shares)]:
        shares[c] += 1
    return tuple(shares)


def _whole(given: list[float]) -> Weights | None:
    # whole numbers in the ratios of the decimals that were given, if they are small enough
    ratios = [Fraction(repr(weight)) for weight in given]
    scale = math.lcm(*(ratio.denominator for ratio in ratios))
    scaled = [int(ratio * scale) for ratio in ratios]
    common = math.gcd(*scaled)
    shares = tuple(number // common for number in scaled)
    return shares if sum(shares) <= MOST else None


def _lost(given: list[float], shares: Weights) -> int | None:
    # the first component whose weight was rounded to nothing
    return next((c for c, w in enumerate(given) if w and not shares[c]), None)
