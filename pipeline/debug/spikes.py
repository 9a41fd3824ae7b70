"""Finding the steps of a run that stand out, by a robust z-score over the values before them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from pipeline.checks import whole
from pipeline.errors import PositionError

WINDOW, THRESHOLD = 100, 5.0
FEWEST = 10  # values before a step; with fewer its score would not mean much
_AT_ONCE = 1 << 14  # windows whose medians are computed together, within the CPU's caches

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Spike:
    """Consecutive steps at which some field stood out.

    Attributes:
        step: the first of them.
        lasted: how many steps, until every field was below the threshold again.
        score: the largest z-score among them; None if a value was not finite.
        peak: the step with that score, or with the first value that is not finite.
        fields: names of the fields that stood out, the strongest first.
        values: for each of these fields, its value at its own largest score; None if not finite.
        before: for each of these fields, the median over the window before that step.
    """

    step: int
    lasted: int
    score: float | None
    peak: int
    fields: tuple[str, ...]
    values: dict[str, float | None]
    before: dict[str, float | None]

    def as_json(self) -> dict[str, Any]:
        """The spike as plain data."""
        return {**dataclasses.asdict(self), "fields": list(self.fields)}


def robust_scores(values: ArrayLike, *, window: int = WINDOW) -> tuple[Floats, Floats]:
    """How far each value is above the median of those before it.

    The score of x is (x - m) / max(1.4826 * MAD, 0.001 * |m|), where m and MAD are the median and
    the median absolute deviation of the last `window` finite values before x. The factor makes the
    scale a standard deviation if values are normally distributed. The lower bound keeps a constant
    past from making every value a spike.

    Args:
        values: float[n], in the order of steps.
        window: how many values each is compared with.

    Returns:
        (scores, medians), float64[n] each. A score is NaN with fewer than 10 values before it, and
            inf if the value itself is not finite.

    >>> scores, medians = robust_scores([1.0, 1.1] * 10 + [9.0], window=20)
    >>> round(scores[-1]), medians[-1]
    (107, np.float64(1.05))
    """
    window = whole("window", window, FEWEST, PositionError)
    x = np.asarray(values, np.float64).ravel()
    scores, medians = np.full(len(x), np.nan), np.full(len(x), np.nan)
    finite = np.flatnonzero(np.isfinite(x))
    known = x[finite]
    median, scale = np.full(len(known) + 1, np.nan), np.full(len(known) + 1, np.nan)
    for i in range(FEWEST, min(window, len(known) + 1)):
        median[i : i + 1], scale[i : i + 1] = _median_and_scale(known[None, :i])
    if len(known) >= window:
        windows = sliding_window_view(known, window)
        for i in range(0, len(windows), _AT_ONCE):
            part = windows[i : i + _AT_ONCE]
            here = slice(window + i, window + i + len(part))
            median[here], scale[here] = _median_and_scale(part)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores[finite] = (known - median[:-1]) / scale[:-1]
    # before a value that is not finite: the median of the finite values to its left
    medians[:] = median[np.searchsorted(finite, np.arange(len(x)))]
    scores[~np.isfinite(x)] = np.inf
    return scores, medians


def _median_and_scale(windows: Floats) -> tuple[Floats, Floats]:
    median = np.median(windows, axis=1)
    mad = np.median(np.abs(windows - median[:, None]), axis=1)
    # a past of zeros has no scale: the smallest float makes any rise above it a spike
    least = np.maximum(1e-3 * np.abs(median), np.finfo(float).tiny)
    return median, np.maximum(1.4826 * mad, least)


def find_spikes(
    steps: ArrayLike,
    fields: Mapping[str, ArrayLike],
    *,
    window: int = WINDOW,
    threshold: float = THRESHOLD,
    told: Mapping[str, ArrayLike] | None = None,
) -> list[Spike]:
    """The spikes of a run, in the order of steps. Consecutive spiking steps are one spike.

    Args:
        steps: int[n], ascending.
        fields: name -> float[n], such as loss and gradient norm. NaN, infinities and None are
            values that are not finite.
        window: how many finite values before it a value is compared with.
        threshold: the smallest score of a spike.
        told: name -> bool[n], where a field has a value at all; by default everywhere.

    Raises:
        PositionError: the window holds fewer than 10 values, or the threshold is not above 0.

    >>> loss = [2.0, 2.1, 2.2] * 15
    >>> loss[30], loss[35] = 8.0, float("nan")
    >>> found = find_spikes(range(45), {"loss": loss})
    >>> [(s.step, s.score and round(s.score), s.fields) for s in found]
    [(30, 40, ('loss',)), (35, None, ('loss',))]
    """
    if not threshold > 0:
        raise PositionError(f"threshold={threshold} must be above 0: usual are 5 to 10.")
    at = np.asarray(steps, np.int64).ravel()
    values = {name: np.array(x, np.float64).ravel() for name, x in fields.items()}
    found = {name: robust_scores(x, window=window) for name, x in values.items()}
    if not len(at) or not found:
        return []
    for name, where in (told or {}).items():
        if name in found:
            found[name][0][~np.asarray(where, bool)] = np.nan
    scores = np.stack([np.nan_to_num(s, nan=-np.inf, posinf=np.inf) for s, _ in found.values()])
    best = scores.max(axis=0)
    return [
        _spike(at, part, scores, values, {name: m for name, (_, m) in found.items()}, threshold)
        for part in _runs(at, best, threshold)
    ]


def _runs(at: NDArray[np.int64], best: Floats, threshold: float) -> list[NDArray[np.int64]]:
    # consecutive spiking steps; another spike begins where values cease to be finite
    hot = np.flatnonzero(best >= threshold)
    kind = np.isinf(best[hot])
    cuts = np.flatnonzero((np.diff(at[hot]) != 1) | np.diff(kind)) + 1
    return [part for part in np.split(hot, cuts) if len(part)]


def _spike(
    at: NDArray[np.int64],
    part: NDArray[np.int64],
    scores: Floats,
    values: Mapping[str, Floats],
    medians: Mapping[str, Floats],
    threshold: float,
) -> Spike:
    tops: Sequence[int] = [int(part[i]) for i in scores[:, part].argmax(axis=1)]
    sizes = {name: float(scores[k, tops[k]]) for k, name in enumerate(values)}
    names = sorted((n for n in values if sizes[n] >= threshold), key=lambda n: -sizes[n])
    where = dict(zip(values, tops, strict=True))
    peak = where[names[0]] if not math.isinf(sizes[names[0]]) else int(part[0])
    return Spike(
        step=int(at[part[0]]),
        lasted=len(part),
        score=_finite(sizes[names[0]]),
        peak=int(at[peak]),
        fields=tuple(names),
        values={n: _finite(values[n][where[n]]) for n in names},
        before={n: _finite(medians[n][where[n]]) for n in names},
    )


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
