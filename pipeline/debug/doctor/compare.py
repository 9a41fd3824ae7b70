"""Where a run first differs from the uninterrupted one, and which records it lost or repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from pipeline.debug.doctor.launch import Seen
from pipeline.debug.doctor.report import listed
from pipeline.debug.doctor.rows import Record

Batches = Sequence[list[Record]]
END = "the end of the data"
EMPTY = "a pass without a batch"


class Difference(NamedTuple):
    """The first step that differs: what came, what should have come, and a note in words."""

    step: int | None
    came: Any
    expected: Any
    note: str = ""


def difference(base: Seen, got: Seen, *, steps: int | None = None) -> Difference | None:
    """Where a run leaves the uninterrupted one, or None; both are looked at as far as they go.

    Args:
        base: the uninterrupted run, from step 0.
        got: a run from any step.
        steps: the data step to which the run must have come; by default, as far as it was asked.
    """
    start = got.job.start
    until = min(len(base.batches), start + got.job.least if steps is None else steps)
    expected = base.batches[start:until]
    for i, rows in enumerate(expected):
        here = start + i
        empty = _empty_pass(base, got, here)
        if empty:
            return Difference(here, EMPTY, rows, empty)
        if i >= len(got.batches):
            return Difference(here, got.failure or END, rows)
        if got.batches[i] != rows:
            return Difference(here, got.batches[i], rows, _lost(expected, got.batches))
    if got.failure:
        return Difference(until, got.failure, "no error")
    late = set(base.edges) ^ set(got.edges)
    wrong = sorted(step for step in late if start < step < until)
    if wrong:
        return Difference(wrong[0], *_edges(base, wrong[0]))
    return None


def _empty_pass(base: Seen, got: Seen, step: int) -> str:
    # a loader's own state says which pass comes next; an iterator's may stand at its end
    with_batches = max(base.edges.count(step), 1) if step > got.job.start else 0
    if "skips_ends" in got.facts or got.edges.count(step) <= with_batches:
        return ""
    return "a pass of the loader ended before its first batch"


def _edges(base: Seen, step: int) -> tuple[str, str]:
    ended, went_on = "the end of a pass", "a batch of the same pass"
    return (went_on, ended) if step in base.edges else (ended, went_on)


def lost_and_repeated(expected: Batches, came: Batches) -> tuple[list[Record], list[Record]]:
    """Records that should have come and did not, and those that came too often.

    >>> lost_and_repeated([[1, 2], [3, 4]], [[1, 2], [2, 3]])
    ([4], [2])
    """
    want, have = Counter(chain.from_iterable(expected)), Counter(chain.from_iterable(came))
    return list((want - have).elements()), list((have - want).elements())


def _lost(expected: Batches, came: Batches) -> str:
    lost, repeated = lost_and_repeated(expected, came[: len(expected)])
    return told(lost, repeated)


def told(lost: list[Record], repeated: list[Record]) -> str:
    """Lost and repeated records in words.

    >>> told([1], [])
    'lost 1: [1]; repeated none'
    """
    parts = (("lost", lost), ("repeated", repeated))
    return "; ".join(f"{w} {len(r)}: {listed(r)}" if r else f"{w} none" for w, r in parts)


def global_difference(base: Seen, ranks: Sequence[Seen], skip: int = 0) -> Difference | None:
    """Where the global batches of several hosts leave those of one.

    After each step the hosts together must have handed out the next records of the stream, as a
    multiset: who keeps the batch of a host instead of the global one has longer steps over it.

    Args:
        base: the uninterrupted run on one host.
        ranks: the run of each host, from the same step.
        skip: how many records were handed out before it.
    """
    rows = list(chain.from_iterable(base.batches))[skip:]
    start, failed = ranks[0].job.start, next((r for r in ranks if r.failure), None)
    for i in range(ranks[0].job.least):
        parts = [rank.batches[i] if i < len(rank.batches) else [] for rank in ranks]
        came = list(chain.from_iterable(parts))
        expected, rows = rows[: len(came)], rows[len(came) :]
        if len(expected) < len(came):
            break  # the uninterrupted run was not looked at so far
        if failed and not all(parts):
            return Difference(start + i, failed.failure, expected + rows[:8])
        if not came:
            return Difference(start + i, END, rows[:8]) if rows else None
        if Counter(came) != Counter(expected):
            note = told(*lost_and_repeated([expected], [came]))
            return Difference(start + i, came, expected, note)
    return Difference(None, failed.failure, "no error") if failed else None
