"""Finding the rows and the step that made a loss spike, by leaving some out and trying again."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np

from pipeline.provenance.where import RowOrigin

BACK = 4  # steps before the spike that may have caused it
ENOUGH = 0.5  # share of the excess that counts as an explanation
Unit = TypeVar("Unit", bound=Hashable)  # what is left out as a whole: a document, or a row


# (step, units) -> the value at the spike if these units of the step had been left out; None: all
Measure = Callable[[int, Sequence[Any] | None], float]


@dataclass(frozen=True)
class Explanation(Generic[Unit]):
    """The cause of a spike.

    Attributes:
        step: the step whose data explain most of it.
        units: the units of that step that explain it, the most suspicious first; empty if none do.
        share: the share of the excess over the value before that is gone without them; 1.0 is all.
        steps: the share that each candidate step explains as a whole.
        evaluations: how often the value was computed again.
    """

    step: int
    units: tuple[Unit, ...]
    share: float
    steps: dict[int, float]
    evaluations: int


def most_evaluations(rows: int) -> int:
    """How many evaluations a batch of so many rows may take: 5 + 2 log2(rows)."""
    return BACK + 1 + 2 * max(0, math.ceil(math.log2(rows)))


def search(
    measure: Measure,
    units: Callable[[int], Sequence[Any]],
    *,
    steps: Sequence[int],
    value: float,
    before: float,
    rows: int,
) -> Explanation[Any]:
    """Find the cause of a spike.

    Each candidate step is left out as a whole. The units of the one that explains most are halved,
    as long as a half explains at least 50 %. If no half does, the current set is reported. If both
    halves of an earlier step explain the spike, or neither does, none of its units is special: its
    update as a whole mattered, and no units are reported.

    Args:
        measure: computes the value again.
        units: returns a step's units, the most suspicious first: good guesses save evaluations.
        steps: candidates, the spike's own step first.
        value: at the spike.
        before: the median before it.
        rows: in a batch; limits the evaluations, see `most_evaluations`.
    """
    budget, spent = most_evaluations(rows), 0

    def share(step: int, without: Sequence[Any] | None) -> float:
        nonlocal spent
        spent += 1
        return explained(value, measure(step, without), before)

    whole = {step: share(step, None) for step in steps}
    step = max(whole, key=lambda s: whole[s])
    current, found = list(units(step)), whole[step]
    if not found >= ENOUGH:
        return Explanation(step, (), found, whole, spent)
    first = True
    while len(current) > 1 and spent < budget:
        shares: list[float] = []
        parts = _halves(current)
        for part in parts:
            if spent < budget and (first or not shares or shares[0] < ENOUGH):
                shares.append(share(step, part))
        good = [i for i, s in enumerate(shares) if s >= ENOUGH]
        if first and len(good) != 1:
            units_left = tuple(current) if step == steps[0] else ()
            return Explanation(step, units_left, found, whole, spent)
        if not good:
            break
        current, found, first = list(parts[good[0]]), shares[good[0]], False
    return Explanation(step, tuple(current), found, whole, spent)


def _halves(items: Sequence[Any]) -> list[Sequence[Any]]:
    """Both halves of a list; the first is not smaller.

    >>> _halves([1, 2, 3])
    [[1, 2], [3]]
    """
    cuts = [0, (len(items) + 1) // 2, len(items)]
    return [items[a:b] for a, b in pairwise(cuts)]


def explained(value: float, without: float, before: float) -> float:
    """The share of a value's excess that is gone; all of it if the value is finite again.

    >>> explained(4.0, 2.5, 2.0), explained(float("nan"), 2.0, 2.0)
    (0.75, 1.0)
    """
    if not math.isfinite(value):
        return 1.0 if math.isfinite(without) else 0.0
    return (value - without) / (value - before) if math.isfinite(without) else 0.0


StepFunction = Callable[[Any, Any], tuple[Any, Any]]  # (state, batch) -> (state, losses of rows)


def explain(
    step: StepFunction,
    state: Any,
    batches: Callable[[int], Mapping[str, Any]],
    at: int,
    *,
    before: float,
    mask: Callable[[Mapping[str, Any], Sequence[int]], Mapping[str, Any]] | None = None,
    copied: Callable[[Any], Any] = copy.deepcopy,
) -> Explanation[int]:
    """Find the rows that made the loss of step `at` spike, in your own training loop.

    Args:
        step: (state, batch) -> (state, losses float[B] of the batch's rows).
        state: just before step `max(0, at - 4)`, from a checkpoint or by replaying.
        batches: returns the batch of a step, such as `loader.__getitem__`.
        at: the step that spiked.
        before: the usual loss before it, such as the median of the window.
        mask: (batch, rows) -> the batch in which these rows do not train. By default their part of
            the batch's field "weights" is set to 0.
        copied: copies a state; a step function may destroy the one that it gets.

    Returns:
        The rows that explain it, largest losses first; `loader.where(found.step)` names their
            records.

    >>> def step(mean, batch):
    ...     losses, w = np.abs(batch["x"] - mean), batch["weights"]
    ...     return mean + 0.1 * np.sum(w * (batch["x"] - mean)) / max(w.sum(), 1), losses
    >>> data = np.ones((6, 4))
    >>> data[3, 2] = 1000.0
    >>> batches = lambda k: {"x": data[k], "weights": np.ones(4)}
    >>> found = explain(step, 1.0, batches, 4, before=0.0)
    >>> found.step, found.units, found.share
    (3, (2,), 1.0)
    """
    first = max(0, at - BACK)
    hide = mask or _without_rows
    states, losses = [state], list[Any]()
    for k in range(first, at + 1):
        after, found = step(copied(states[-1]), batches(k))
        states.append(after)
        losses.append(np.asarray(found, np.float64))

    def measure(k: int, without: Sequence[int] | None) -> float:
        if k == at and without is None:  # no row would be left, so another batch is used
            other = batches(first if first < at else at + 1)
            return float(np.mean(step(copied(states[at - first]), other)[1]))
        rows = range(len(losses[k - first])) if without is None else without
        now, found = step(copied(states[k - first]), hide(batches(k), rows))
        for later in range(k + 1, at + 1):
            now, found = step(now, batches(later))
        kept = np.delete(np.asarray(found, np.float64), rows) if k == at else found
        return float(np.mean(kept))

    def rows_of(k: int) -> list[int]:
        return _worst_first(losses[k - first])

    return search(
        measure,
        rows_of,
        steps=range(at, first - 1, -1),
        value=float(np.mean(losses[-1])),
        before=before,
        rows=len(losses[-1]),
    )


def worst_rows(
    step: StepFunction,
    state: Any,
    batch: Any,
    origins: Sequence[RowOrigin],
    *,
    top: int = 20,
    copied: Callable[[Any], Any] = copy.deepcopy,
) -> list[tuple[int, float, RowOrigin]]:
    """The rows of a batch with the largest losses, in your own training loop.

    Args:
        step: (state, batch) -> (state, losses float[B] of the batch's rows).
        state: just before the step; it is not changed.
        batch: of the step.
        origins: of its rows, as `loader.where(k)`.
        top: rows at most.
        copied: copies a state.

    Returns:
        (row, loss, origin), largest loss first; NaN counts as the largest.

    >>> from pipeline import Dataset, Loader
    >>> loader = Loader(Dataset({"x": np.array([1.0, 7.0, 2.0, 9.0])}), 4)
    >>> found = worst_rows(lambda s, b: (s, b["x"]), None, loader[0], loader.where(0), top=2)
    >>> [(row, loss, origin.record) for row, loss, origin in found]
    [(3, 9.0, 3), (1, 7.0, 1)]
    """
    losses = np.asarray(step(copied(state), batch)[1], np.float64)
    return [(i, float(losses[i]), origins[i]) for i in _worst_first(losses)[:top]]


def _worst_first(losses: Any) -> list[int]:
    return np.argsort(-np.nan_to_num(losses, nan=np.inf), kind="stable").tolist()


def _without_rows(batch: Mapping[str, Any], rows: Sequence[int]) -> Mapping[str, Any]:
    if "weights" not in batch:
        raise KeyError("the batch has no field 'weights': give explain(mask=...)")
    weights = np.array(batch["weights"])
    weights[list(rows)] = 0
    return {**batch, "weights": weights}
