"""Which rows of which step made a loss spike: by leaving some out, and looking at it again."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np

BACK = 4  # steps before the spike that may have caused it
ENOUGH = 0.5  # share of the excess that counts as an explanation
Unit = TypeVar("Unit", bound=Hashable)  # what is left out as a whole: a document, or a row


# answers: the value at the spike, had these units of a step been left out; None means all of them
Measure = Callable[[int, Sequence[Any] | None], float]


@dataclass(frozen=True)
class Explanation(Generic[Unit]):
    """What was found.

    Attributes:
        step: the step whose data explains most.
        units: what of it explains the spike, the most suspicious first; empty where nothing does.
        share: of the excess over the value before that is gone without them, 1.0 being all of it.
        steps: the share that each candidate step explains as a whole.
        evaluations: how often the value was computed again.
    """

    step: int
    units: tuple[Unit, ...]
    share: float
    steps: dict[int, float]
    evaluations: int


def most_evaluations(rows: int) -> int:
    """Evaluations that a batch of so many rows may take: 5 + 2 log2(rows)."""
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
    """Find what explains a spike.

    Each candidate step is left out as a whole; the one that explains most is halved while a half
    explains at least 50 %. Where no half does, what is left is reported as a set. An earlier step
    of which both halves explain it, or none, has nothing special in it: its update as a whole
    mattered, and no units are reported.

    Args:
        measure: computes the value again.
        units: of a step, the most suspicious first: good guesses save evaluations.
        steps: candidates, the spike's own first.
        value, before: at the spike, and the median before it.
        rows: of a batch; bounds the evaluations, see `most_evaluations`.
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
    """Both halves of a list, the first not the smaller one.

    >>> _halves([1, 2, 3])
    [[1, 2], [3]]
    """
    cuts = [0, (len(items) + 1) // 2, len(items)]
    return [items[a:b] for a, b in pairwise(cuts)]


def explained(value: float, without: float, before: float) -> float:
    """The share of a value's excess that is gone; a value that is finite again explains all.

    >>> explained(4.0, 2.5, 2.0), explained(float("nan"), 2.0, 2.0)
    (0.75, 1.0)
    """
    if not math.isfinite(value):
        return 1.0 if math.isfinite(without) else 0.0
    return (value - without) / (value - before) if math.isfinite(without) else 0.0


StepFunction = Callable[[Any, Any], tuple[Any, Any]]  # state, batch -> state, losses of rows


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
    """Which rows made the loss of step `at` spike, for a training loop of one's own.

    Args:
        step: (state, batch) -> (state, losses float[B] of the batch's rows).
        state: just before step `max(0, at - 4)`, from a checkpoint or a journal's replay.
        batches: the batch of a step, as `loader.__getitem__`.
        at: the step that spiked.
        before: the usual loss before it, as the median of the window.
        mask: (batch, rows) -> the batch in which these rows do not train; by default their part of
            the batch's field "weights" is set to 0.
        copied: copies a state; step functions may use up the one that they get.

    Returns:
        The rows that explain it, the largest losses first; `loader.where(found.step)` names their
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
        if k == at and without is None:  # nothing would be left: the next batch stands in
            return float(np.mean(step(copied(states[at - first]), batches(at + 1))[1]))
        rows = range(len(losses[k - first])) if without is None else without
        now, found = step(copied(states[k - first]), hide(batches(k), rows))
        for later in range(k + 1, at + 1):
            now, found = step(now, batches(later))
        kept = np.delete(np.asarray(found, np.float64), rows) if k == at else found
        return float(np.mean(kept))

    def rows_of(k: int) -> list[int]:
        return np.argsort(-np.nan_to_num(losses[k - first], nan=np.inf), kind="stable").tolist()

    return search(
        measure,
        rows_of,
        steps=range(at, first - 1, -1),
        value=float(np.mean(losses[-1])),
        before=before,
        rows=len(losses[-1]),
    )


def _without_rows(batch: Mapping[str, Any], rows: Sequence[int]) -> Mapping[str, Any]:
    if "weights" not in batch:
        raise KeyError("the batch has no field 'weights': give explain(mask=...)")
    weights = np.array(batch["weights"])
    weights[list(rows)] = 0
    return {**batch, "weights": weights}
